// useMachine: a machine for each test of a file (or one for all of them), restored or booted, and closed, by hooks.
// A machine that broke under a test fails that test and is replaced for the next. It draws no tables and
// checks no claims: the matchers do.
import { afterAll, afterEach, beforeAll, beforeEach } from '@jest/globals';
import { UsageError } from '../errors.ts';
import { defaultOptions } from '../machine/default-options.ts';
import { startInterruptTrace } from '../machine/interrupt-trace.ts';
import type { InterruptMark } from '../machine/interrupt-ledger.ts';
import { markInterrupts } from '../machine/interrupt-stretch.ts';
import { restore } from '../machine/kept-snapshots.ts';
import type { Guest } from '../guest/guest.ts';
import type { Machine } from '../machine/machine.ts';
import type { BootOptions } from '../machine/options.ts';
import type { PciFunction } from '../machine/pci-function.ts';
import { terminalProgress } from '../packages/index.ts';
import { currentTest } from './current-test.ts';
import { beginTest, tellScene } from './scene.ts';
import { defaultFreshness, MachineSource, type Freshness } from './machine-source.ts';
import { keepStates } from './kept-states.ts';
import { recover, tellReports } from './recover.ts';

export interface UseMachineOptions extends BootOptions {
  /**
   * Who shares a kernel.
   * - `'test'` (default): every test has one that no other test has touched, restored in a fraction of a boot from a
   *   snapshot that the cache keeps for all files and runs. With `devices` it is not the default, for a back end
   *   cannot be saved; asked for, it boots for every test, and a note says so.
   * - `'file'` (default with `devices`, or devices in `extraArgs` that are no ports or bridges): the file's tests share one, restored where it can be; replaced when it broke.
   * - `'never'`: the file's tests share one that was truly booted, for tests of what a boot itself does; replaced, by
   *   a boot, only when it broke.
   */
  readonly fresh?: Freshness;
  /**
   * Runs once a machine, with `fresh: 'test'` once a file: its snapshot is taken after it. Load modules, write files.
   * It plugs nothing.
   */
  readonly warm?: (guest: Guest, machine: Machine) => Promise<void>;
  /** Runs after every boot or restore (with `fresh: 'test'` for every test), before tests get the machine: plug devices that all tests use. */
  readonly afterBoot?: (machine: Machine) => Promise<void>;
}

/** The running machine, under a name that a file's tests share; and more. */
export type TestMachine = Omit<Machine, 'close'> & {
  /**
   * Another machine, for this test alone: the file's options with these over them, restored where it can be, without
   * `warm` and `afterBoot`. Closed after the test. Give it a device object that is not plugged elsewhere.
   */
  fresh(options?: BootOptions): Promise<Machine>;
  /** Where the interrupt counts of a function stand, to count from here: `toHaveDelivered({ since })`. */
  mark(fn: PciFunction): Promise<InterruptMark>;
};

// Only above everything that happens in a hook: a boot has a deadline of its own (BootOptions.timeoutMs)
// that says how far it came, an unplug and a command too. What is left is a download that only this
// file's options ask for, which is as slow as the network.
const HOOK_TIMEOUT_MS = 15 * 60_000;

/**
 * A machine for this file's tests. Call it at the top of the file or of a describe block, not in a
 * hook or a test; use what it returns in tests and in hooks that are defined after it.
 *
 * After a test its machine is closed; one that the tests share loses the devices that the test left plugged (those of
 * `afterBoot` and beforeAll stay).
 * A machine that broke (QEMU ended, the kernel faulted, a back end failed) fails the test under which it
 * did, even one whose assertions passed, and is replaced for the next. So does any report of the kernel's, a
 * warning too, that the test does not want (expectKernelReport). Jest runs afterEach hooks in the
 * order they are defined: one defined after useMachine finds the test's devices gone.
 * @throws UsageError when the result is used where no machine is running
 */
export function useMachine({ fresh: asked, warm, afterBoot, ...given }: UseMachineOptions = {}): TestMachine {
  if (currentTest() !== undefined) {
    throw new UsageError('useMachine was called inside a test', {
      hint: 'call it at the top of the file; inside a test, vm.fresh() gives a machine of the test\'s own',
    });
  }
  const options: BootOptions = { progress: terminalProgress(), ...defaultOptions(), ...given };
  const fresh = asked ?? defaultFreshness(options);
  let machine: Machine | undefined;
  const own: Machine[] = [];
  let inTest = false;

  const source = new MachineSource(options, { fresh, warm });

  const start = async (): Promise<void> => {
    const one = await source.next();
    try {
      await startInterruptTrace(one);
      await afterBoot?.(one);
    } catch (error) {
      await one.close();
      throw error;
    }
    machine = one;
  };
  const stop = async (): Promise<void> => {
    const old = machine;
    machine = undefined;
    await old?.close();
  };

  beforeAll(fresh === 'test' ? () => source.prepare() : start, HOOK_TIMEOUT_MS);
  beforeEach(async () => {
    if (machine?.signal.aborted) await stop();
    if (machine === undefined) await start();
    inTest = true;
    if (machine !== undefined) await beginTest(machine, currentTest()?.name ?? 'a test');
  }, HOOK_TIMEOUT_MS);
  afterEach(async () => {
    inTest = false;
    const mine = own.splice(0);
    const all = [...mine, ...(machine === undefined ? [] : [machine])];
    try {
      for (const one of all) await tellScene(one, currentTest());
      if ((currentTest()?.errors.length ?? 0) > 0) await keepStates(all, currentTest());
      if (machine !== undefined) {
        if (!await recover(machine, currentTest(), { again: fresh !== 'test' })) await stop();
      }
      for (const one of mine) await tellReports(one, currentTest());
    } catch (error) {
      await keepStates(all, currentTest()); // the test passed so far
      throw error;
    } finally {
      for (const one of mine) await one.close();
      if (fresh === 'test' || machine?.signal.aborted) await stop();
    }
  }, HOOK_TIMEOUT_MS);
  afterAll(async () => {
    await stop();
    await source.close();
  }, HOOK_TIMEOUT_MS);

  const additions: Pick<TestMachine, 'fresh' | 'mark'> = {
    mark: markInterrupts,
    async fresh(more = {}) {
      if (!inTest) {
        throw new UsageError('vm.fresh was called outside of a test', { hint: 'it gives a machine to one test, and closes it after: call it inside test(...)' });
      }
      const one = await restore({ ...options, devices: [], ...more });
      own.push(one);
      await startInterruptTrace(one);
      await beginTest(one, currentTest()?.name ?? 'a test');
      return one;
    },
  };
  return new Proxy({} as TestMachine, {
    get(_target, name) {
      if (name in additions) return additions[name as keyof typeof additions];
      // Printing and awaiting the handle itself must not throw.
      if (machine === undefined && (typeof name === 'symbol' || name === 'then' || name === 'toJSON')) return undefined;
      const value: unknown = Reflect.get(running(name), name, machine);
      return typeof value === 'function' ? value.bind(machine) as unknown : value;
    },
    has: (_target, name) => name in additions || (machine !== undefined && name in machine),
    getPrototypeOf: () => (machine === undefined ? Object.prototype : Object.getPrototypeOf(machine) as object),
  });

  function running(name: string | symbol): Machine {
    if (machine !== undefined) return machine;
    throw new UsageError(`vm.${String(name)} was used where no machine is running`, {
      hint: (fresh === 'test' ? 'each test has a machine of its own, from beforeEach to afterEach: what all tests need belongs into warm or afterBoot, or into ' +
        'beforeEach; with fresh: \'file\' the tests share one, and beforeAll has it; '
        : 'the machine of useMachine is there from beforeAll to afterAll: ') +
        'use it inside tests, or in hooks that are defined after useMachine was called',
    });
  }
}
