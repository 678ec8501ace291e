// `rootport run` over real guests and real Jests: exit codes, tallies, and its ends. Runs dist/.
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { ResultPromise } from 'execa';
import { findProgram } from '../../src/cli/doctor-host.ts';
import { within } from '../../src/wait.ts';
import { allGone, commandOf, descendants } from './descendants.ts';
import { exitOf, PACKAGE, rootport, start, temporary, type CliOptions } from './rootport.ts';

let root: string;
const started: ResultPromise[] = [];
beforeEach(() => { root = temporary('run'); });
afterEach(() => {
  for (const child of started.splice(0)) child.kill('SIGKILL');
  rmSync(root, { recursive: true });
});

/** A project of a user, with the package in its node_modules, and these suites. */
function project(suites: Record<string, string>): CliOptions {
  mkdirSync(join(root, 'node_modules'));
  symlinkSync(PACKAGE, join(root, 'node_modules/rootport'));
  writeFileSync(join(root, 'package.json'), '{ "type": "module", "jest": { "preset": "rootport" } }');
  mkdirSync(join(root, 'suites'));
  for (const [name, text] of Object.entries(suites)) writeFileSync(join(root, 'suites', `${name}.suite.js`), text);
  return { cwd: root };
}

const IMPORTS = 'import { expect, test } from "@jest/globals"; import { EnvironmentError, edu } from "rootport"; import { useMachine } from "rootport/jest";\n';
const PASSES = `${IMPORTS} test("it passes", () => {});`;
const FAILS = `${IMPORTS} test("it fails", () => { expect(1).toBe(2); });`;
const LACKS = `${IMPORTS} test("the host lacks it", () => { throw new EnvironmentError("no such thing", { hint: "get one" }); });`;

describe('the package\'s own suites', () => {
  // One test of it: `npm run suites` runs them all.
  test('run edu says first which machine it boots and why, passes, and exits with 0', async () => {
    const { exitCode, stdout, stderr } = await rootport(['run', 'edu', '-t', 'edu has the ids'], { cwd: root });
    expect(stderr).toMatch(/^PASS .*suites\/edu\/edu\.suite\.ts/m);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^machine: q35, QEMU \d.*, Linux Debian 6\.1\..*, (kvm|tcg): /);
  });
});

describe('a project of its own', () => {
  test('a suite with a machine passes: --accel reaches it, and a warm cache is said to be one', async () => {
    const there = project({
      machine: `${IMPORTS} const vm = useMachine(); test("edu is there", async () => {
        expect(vm.description).toMatch(/tcg: asked for; restored from a snapshot of /);
        expect((await vm.plug(edu())).bdf).toBe("0000:01:00.0");
      });`,
    });
    const { exitCode, stdout } = await rootport(['run', '--accel', 'tcg', '--workers', '1'], there);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^machine: .*, tcg: asked for\ncache: .* nothing was downloaded$/);
  });

  test('a failed suite exits with 1, even where the host lacks something too', async () => {
    expect(await rootport(['run', '--retries', '0'], project({ passes: PASSES, fails: FAILS, lacks: LACKS }))).toMatchObject({ exitCode: 1 });
  });

  test('failures that are all the environment\'s exit with 3', async () => {
    const { exitCode, stderr } = await rootport(['run'], project({ passes: PASSES, lacks: LACKS }));
    expect(stderr).toMatch(/EnvironmentError: no such thing[^]*hint: get one/);
    expect(stderr).toMatch(/^error: every failure above is the host's: it lacks something\n {2}hint: rootport doctor/m);
    expect(exitCode).toBe(3);
  });

  test('--repeat goes on after a failure, and tallies each suite: one that is flaky, one that does not load and one whose tear-down fails, too', async () => {
    const failsFirst = (tries: number): string => `import { appendFileSync, readFileSync } from "node:fs"; ${IMPORTS}
      test("it fails at first", () => {
        appendFileSync("${tries}", "x");
        expect(readFileSync("${tries}", "utf8").length).toBeGreaterThan(${tries});
      });`;
    const { exitCode, stdout } = await rootport(['run', '--repeat', '2', '--retries', '1'], project({
      once: failsFirst(2), shaky: failsFirst(1), passes: PASSES,
      broken: 'import "./nowhere.js";', teardown: `import { afterAll } from "@jest/globals"; ${PASSES} afterAll(() => { throw new Error("no"); });`,
    }));
    expect(exitCode).toBe(1);
    expect(stdout.split('\n').slice(2)).toEqual([
      expect.stringMatching(/^run 1 of 2: failed, \d+ s$/), expect.stringMatching(/^run 2 of 2: errored, \d+ s$/), '2 runs:',
      '  broken    0/2  errored in run 1, 2', '  once      1/2  failed in run 1', '  passes    2/2', '  shaky     1/2  flaky in run 1', '  teardown  0/2  errored in run 1, 2',
    ]);
  });

  test('a name takes suites and -t takes tests, and a pattern that no test has is a usage error', async () => {
    const there = project({ both: `${PASSES} test("it fails", () => { expect(1).toBe(2); });`, passes: `${PASSES} throw new Error("not asked for");` });
    expect(await rootport(['run', 'both', '-t', 'it passes'], there)).toMatchObject({ exitCode: 0 });
    const { exitCode, stderr } = await rootport(['run', 'both', '-t', 'it flies'], there);
    expect(stderr).toMatch(/error: no test was run\n {2}hint: no name matches it flies$/);
    expect(exitCode).toBe(2);
  });

  test('a suite that there is not is a usage error that lists the project\'s', async () => {
    const { exitCode, stderr } = await rootport(['run', 'edu'], project({ passes: PASSES, fails: FAILS }));
    expect(stderr).toBe(`error: there is no suite named "edu"\n  hint: the suites of ${root} are fails, passes`);
    expect(exitCode).toBe(2);
  });
});

describe('an environment that lacks something', () => {
  /** A PATH with what starts Jest and locks the cache, and without apt. */
  function withoutApt(): string {
    const directory = join(root, 'bin');
    mkdirSync(directory);
    for (const program of ['node', 'setpriv', 'flock', 'sh']) symlinkSync(findProgram(program) ?? '', join(directory, program));
    return directory;
  }

  test('an empty cache and no apt is one clear error, and exits with 3', async () => {
    const { exitCode, stdout, stderr } = await rootport(['run', 'edu'], { env: { ROOTPORT_CACHE: join(root, 'cache'), PATH: withoutApt() } });
    expect(stderr).toMatch(/^error: apt-get is not on this host, and the cache does not have what was asked for\n {2}hint: hand over your own: /m);
    expect(stderr).not.toMatch(/\n {4}at /);
    expect({ exitCode, stdout }).toEqual({ exitCode: 3, stdout: '' });
  });

  test('a cache that cannot be written exits with 3', async () => {
    writeFileSync(join(root, 'file'), '');
    const { exitCode, stderr } = await rootport(['run', 'edu'], { env: { ROOTPORT_CACHE: join(root, 'file/cache') } });
    expect(stderr).toMatch(/^error: the cache .* cannot be written\n {2}hint: set ROOTPORT_CACHE/m);
    expect(exitCode).toBe(3);
  });

  test('no setpriv exits with 3 and says where it comes from', async () => {
    const bin = withoutApt();
    rmSync(join(bin, 'setpriv'));
    const { exitCode, stderr } = await rootport(['run', 'edu'], { env: { PATH: bin } });
    expect(stderr).toMatch(/^error: Jest cannot be started: [^]*hint: setpriv is in util-linux/m);
    expect(exitCode).toBe(3);
  });
});

describe('an end from outside', () => {
  const HANGS = `import { writeFileSync } from "node:fs"; import { ivshmem } from "rootport"; ${IMPORTS} const vm = useMachine();
    test("it hangs", async () => { await vm.plug(ivshmem()); writeFileSync("up-" + process.pid, ""); await new Promise(() => {}); });`;

  /** Start it on suites that hang with a machine each; resolves with all processes once they do. */
  async function hanging(suites: readonly string[], ...args: string[]): Promise<{ child: ResultPromise; pids: number[] }> {
    const child = start(['run', ...args], project(Object.fromEntries(suites.map((name) => [name, HANGS]))));
    started.push(child);
    const pids = await within((async () => {
      for (;;) {
        const now = descendants(child.pid ?? 0);
        if (now.filter((pid) => existsSync(join(root, `up-${pid}`))).length === suites.length) return now;
        await new Promise((resolve) => { setTimeout(resolve, 100); });
      }
    })(), { timeoutMs: 120_000, what: 'every suite to hang' });
    expect(pids.filter((pid) => commandOf(pid).includes('qemu-system'))).toHaveLength(suites.length);
    return { child, pids: [child.pid ?? 0, ...pids] };
  }

  test('SIGTERM leaves no process and no directory, and exits with 130', async () => {
    const { child, pids } = await hanging(['one'], '--workers', '1');
    child.kill('SIGTERM');
    expect(await exitOf(child)).toBe(130);
    await allGone(pids);
  });

  test('SIGINT does so with the machines of several workers', async () => {
    const { child, pids } = await hanging(['one', 'two'], '--workers', '2');
    child.kill('SIGINT');
    expect(await exitOf(child)).toBe(130);
    await allGone(pids);
  });

  test('SIGKILL of rootport run ends Jest and the machines too', async () => {
    const { child, pids } = await hanging(['one', 'two'], '--workers', '2');
    child.kill('SIGKILL');
    await exitOf(child);
    await allGone(pids);
  });
});
