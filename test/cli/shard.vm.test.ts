// `rootport run --shard`, and the Kubernetes manifest of ci/, whose pods are run here as processes: each with its index
// and the manifest's own command and environment. Suites without machines: which are run is the question. Runs dist/.
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { execa } from 'execa';
import { MAIN, PACKAGE, rootport, temporary } from './rootport.ts';

const NAMES = ['one', 'two', 'three', 'four', 'five', 'six', 'seven'];
let root: string;
beforeEach(() => {
  root = temporary('shard');
  mkdirSync(join(root, 'node_modules/.bin'), { recursive: true });
  symlinkSync(PACKAGE, join(root, 'node_modules/rootport'));
  // npm makes a link to it, and it executable.
  writeFileSync(join(root, 'node_modules/.bin/rootport'), `#!/bin/sh\nexec node ${MAIN} "$@"\n`, { mode: 0o755 });
  mkdirSync(join(root, 'suites'));
  mkdirSync(join(root, 'results'));
  writeFileSync(join(root, 'package.json'), '{ "type": "module", "jest": { "preset": "rootport" } }');
  for (const name of NAMES) writeFileSync(join(root, 'suites', `${name}.suite.js`), `import { test } from "@jest/globals"; test("${name}", () => {});`);
});
afterEach(() => rmSync(root, { recursive: true }));

/** Titles of the tests that were run, by the file of their results. */
function ran(): Record<string, string[]> {
  return Object.fromEntries(readdirSync(join(root, 'results')).filter((name) => name.endsWith('.json')).sort().map((name) => {
    const { tests } = JSON.parse(readFileSync(join(root, 'results', name), 'utf8')) as { tests: { test: string }[] };
    return [name, tests.map((one) => one.test).sort()];
  }));
}

interface Manifest {
  readonly spec: {
    readonly completionMode: string;
    readonly completions: number;
    readonly parallelism: number;
    readonly template: { readonly spec: { readonly containers: readonly [{
      readonly command: readonly [string, ...string[]];
      readonly env: readonly { readonly name: string; readonly value?: string }[];
      readonly volumeMounts: readonly { readonly mountPath: string }[];
    }] } };
  };
}

test('the pods of the Kubernetes manifest run every suite once between them, under names that are the same in each', async () => {
  const { spec } = JSON.parse(readFileSync(join(PACKAGE, 'ci/kubernetes-job.json'), 'utf8')) as Manifest;
  const [{ command: [file, ...args], env, volumeMounts }] = spec.template.spec.containers;
  expect([spec.completionMode, spec.parallelism]).toEqual(['Indexed', spec.completions]);
  expect(env.find(({ name }) => name === 'SHARDS')?.value).toBe(String(spec.completions));
  expect(volumeMounts.map(({ mountPath }) => mountPath)).toContain('/results');
  const pod = async (index: number): Promise<void> => {
    // What the kubelet sets and replaces; this host's accelerator and cache.
    const values = Object.fromEntries(env.flatMap(({ name, value }) => (value === undefined || ['ROOTPORT_ACCEL', 'ROOTPORT_CACHE'].includes(name) ? [] : [[name, value]])));
    const mounted = Object.fromEntries(['ROOTPORT_RESULTS', 'ROOTPORT_REPORT'].map((name) =>
      [name, values[name]?.replace('$(INDEX)', String(index)).replace('/results', join(root, 'results'))]));
    await execa(file, args, { cwd: root, env: { ...values, ...mounted, JOB_COMPLETION_INDEX: String(index) } });
  };
  for (let index = 0; index < spec.completions; index += 1) await pod(index);
  const parts = ran();
  expect(Object.keys(parts)).toEqual(['0.json', '1.json', '2.json', '3.json']);
  expect(Object.values(parts).flat().sort()).toEqual([...NAMES].sort());
  await pod(0); // one that is started again
  expect(ran()).toEqual(parts);

  // And their reports, joined: every test once; with a part left out, which.
  const reports = [0, 1, 2, 3].map((index) => join(root, 'results', `report-${index}`));
  const merged = await rootport(['report', 'merge', ...reports, '-o', join(root, 'all')], { cwd: root });
  expect(merged).toMatchObject({ exitCode: 0 });
  const { tests } = JSON.parse(readFileSync(join(root, 'all/report.json'), 'utf8')) as { tests: { name: string }[] };
  expect(tests.map(({ name }) => name).sort()).toEqual([...NAMES].sort());
  const short = await rootport(['report', 'merge', ...reports.slice(1), '-o', join(root, 'short')], { cwd: root });
  expect(short.exitCode).toBe(1);
  expect(`${short.stdout}${short.stderr}`).toContain('1/4');
});

describe('--shard', () => {
  const shard = (part: string) => rootport(['run', '--shard', part], { cwd: root, env: { ROOTPORT_RESULTS: join(root, 'results', `${part.replace('/', '-of-')}.json`) } });

  test('of more parts than suites: the part without any passes, and says so', async () => {
    for (const name of NAMES.slice(1)) rmSync(join(root, 'suites', `${name}.suite.js`));
    const runs = [await shard('1/2'), await shard('2/2')];
    expect(runs.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
    expect(runs.filter(({ stdout }) => /^shard \d\/2 of 1 suites has none$/m.test(stdout))).toHaveLength(1);
  });

  test('that is none is a usage error', async () => {
    const { exitCode, stderr } = await rootport(['run', '--shard', '3/2'], { cwd: root });
    expect(exitCode).toBe(2);
    expect(stderr).toContain('It is not i/n with i from 1 to n.');
  });
});
