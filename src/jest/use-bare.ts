// useBare: one bare machine for the tests of a file, started and closed by hooks. A machine that broke under a
// test fails that test's later accesses and is replaced for the next.
import { afterAll, afterEach, beforeAll, beforeEach } from '@jest/globals';
import { UsageError } from '../errors.ts';
import { bare } from '../machine/bare.ts';
import type { BareMachine } from '../machine/bare-machine.ts';
import type { BareOptions } from '../machine/bare-options.ts';
import { defaultOptions } from '../machine/default-options.ts';
import { terminalProgress } from '../packages/index.ts';
import { currentTest } from './current-test.ts';
import type { MachineEvidence } from './evidence.ts';
import { evidenceOf, look } from './machine-evidence.ts';

export interface UseBareOptions extends BareOptions {
  /** Runs after every start, before tests get the machine. */
  readonly afterStart?: (machine: BareMachine) => Promise<void>;
}

/** The running machine, under a name that a file's tests share. */
export type TestBareMachine = Omit<BareMachine, 'close'>;

/** A start takes a tenth of a second; what is left is a download that only this file's options ask for. */
const HOOK_TIMEOUT_MS = 15 * 60_000;

/**
 * Start a bare machine for this file's tests. Call it at the top of the file or of a describe block.
 * @throws UsageError when the result is used where no machine is running
 */
export function useBare({ afterStart, ...given }: UseBareOptions = {}): TestBareMachine {
  if (currentTest() !== undefined) throw new UsageError('useBare was called inside a test', { hint: 'call it at the top of the file; inside a test, `await using machine = await bare()`' });
  const { qemu } = defaultOptions();
  const options: BareOptions = { progress: terminalProgress(), ...(qemu === undefined ? {} : { qemu }), ...given };
  let machine: BareMachine | undefined;
  let evidence: MachineEvidence | undefined;
  const start = async (): Promise<void> => {
    machine = await bare(options);
    await afterStart?.(machine);
  };
  const stop = async (): Promise<void> => {
    const old = machine;
    machine = undefined;
    await old?.close();
  };
  beforeAll(start, HOOK_TIMEOUT_MS);
  beforeEach(async () => {
    if (machine?.signal.aborted === true) {
      await stop();
      await start();
    }
    evidence = machine && evidenceOf(machine, machine.console.mark(), machine.deviceLog.length);
    if (evidence !== undefined) currentTest()?.evidence.machines.push(evidence);
  }, HOOK_TIMEOUT_MS);
  afterEach(async () => {
    if (machine !== undefined && evidence !== undefined) await look(machine, evidence);
  }, HOOK_TIMEOUT_MS);
  afterAll(stop, HOOK_TIMEOUT_MS);

  return new Proxy({} as TestBareMachine, {
    get(_target, name) {
      // Printing and awaiting the handle itself must not throw.
      if (machine === undefined && (typeof name === 'symbol' || name === 'then' || name === 'toJSON')) return undefined;
      if (machine === undefined) {
        throw new UsageError(`${String(name)} was used where no bare machine is running`, {
          hint: 'the machine of useBare starts in beforeAll and is closed in afterAll: use it inside tests, or in hooks that are defined after useBare was called',
        });
      }
      const value: unknown = Reflect.get(machine, name, machine);
      return typeof value === 'function' ? value.bind(machine) as unknown : value;
    },
  });
}
