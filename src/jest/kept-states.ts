// Of which failures the machines are kept for `rootport shell --from`: the first ones of a run, as many as
// $ROOTPORT_KEEP_STATES says, while there is room. All workers of a run count together. It fails no test: what cannot be
// kept has its reason in the folder.
import { mkdirSync, readdirSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DeadlineError, EnvironmentError, RootportError, UsageError } from '../errors.ts';
import { keepScene } from '../machine/kept-scene.ts';
import type { Machine } from '../machine/machine.ts';
import { lacksOf } from '../machine/scene-record.ts';
import { MEMORY_FD } from '../qemu/process.ts';
import type { TestRecord } from './current-test.ts';
import type { KeptState } from './evidence.ts';
import { chosenKeep, chosenStates, currentReport, STATES_VARIABLE, statesDirectory } from './report-directory.ts';
import { testStart, type TestStart } from './scene.ts';

const MIB = 2 ** 20;
/** Left free on the disk. */
const SPARE_BYTES = 512 * MIB;

/** Keep the machines of a test that failed, each once; they go on. @throws UsageError for a variable that is no number */
export async function keepStates(machines: readonly Machine[], record: TestRecord | undefined): Promise<void> {
  const report = currentReport();
  if (report === undefined || chosenKeep() === 'never' || record?.errors[0] instanceof UsageError) return;
  const todo = machines.filter((one) => testStart(one) !== undefined && testStart(one)?.evidence.state === undefined);
  if (todo.length === 0) return;
  const most = chosenStates();
  const place = claim(statesDirectory(report.parts), most);
  let slow = false;
  for (const [index, machine] of todo.entries()) {
    const { evidence } = testStart(machine) as TestStart;
    if (place === undefined) {
      evidence.state = { why: most === 0 ? `${STATES_VARIABLE} is 0` : `${STATES_VARIABLE} is ${most}, and the run has kept those of as many failures` };
      continue;
    }
    try {
      evidence.state = await keep(machine, join(place.directory, `${index}`));
    } catch (error) {
      slow ||= error instanceof DeadlineError;
      evidence.state = { why: error instanceof RootportError ? error.summary : String(error) };
    }
  }
  // Another failure may have the place; but not after a wait, lest every failed test of such a file has one.
  if (place !== undefined && !slow && todo.every((one) => 'why' in (testStart(one)?.evidence.state ?? {}))) rmSync(place.mark, { force: true });
}

function keep(machine: Machine, directory: string): Promise<KeptState> {
  return machine.innards.trouble.recorder.span('test', 'keep the machine\'s state', async () => {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    try {
      checkRoom(machine, directory);
      const lacks = lacksOf(await keepScene(machine, directory));
      return { directory, lacks, bytes: readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).size, 0) };
    } catch (error) {
      rmSync(directory, { recursive: true, force: true });
      throw error;
    }
  });
}

/** For what the guest has ever written, and for what else the run has to write. */
function checkRoom({ innards: { process } }: Machine, directory: string): void {
  const { bavail, bsize } = statfsSync(directory);
  const used = process.running ? statSync(`/proc/${process.pid}/fd/${MEMORY_FD}`).blocks * 512 : 0;
  if (bavail * bsize >= used + SPARE_BYTES) return;
  throw new EnvironmentError(`there is no room for ${Math.ceil(used / MIB)} MiB of the guest's memory in ${directory}`);
}

/** One of the places that a run has, for all workers. */
function claim(states: string, most: number): { readonly mark: string; readonly directory: string } | undefined {
  for (let place = 1; place <= most; place += 1) {
    const mark = join(states, `${place}.taken`), directory = join(states, `${place}`);
    try {
      writeFileSync(mark, `${process.pid}\n`, { flag: 'wx' });
    } catch {
      continue;
    }
    return { mark, directory };
  }
  return undefined;
}
