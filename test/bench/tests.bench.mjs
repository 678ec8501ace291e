// Tests with a fresh kernel each, as a user runs them: a Jest of its own with useMachine. Restored against booted, and one
// worker against two. Ten tests stand for a hundred: of what Jest itself costs to start each has ten times as much on it.
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ratios, spread, verdict } from './statistics.mjs';

const PACKAGE = fileURLToPath(new URL('../..', import.meta.url));
const JEST = createRequire(import.meta.url).resolve('jest/bin/jest');
const TESTS = 10;
const FILES = 4;
const ROUNDS_MAX = 3;

const suite = (machine, tests) => `import { test } from '@jest/globals'; import { boot } from 'rootport'; import { useMachine } from 'rootport/jest';
${machine}
test.each(Array.from({ length: ${tests} }, (_, at) => at))('test %i', () => work());`;
const RESTORED = 'const vm = useMachine(); const work = () => vm.guest.run("true");';
const BOOTED = 'const work = async () => { const vm = await boot({ accel: process.env.ROOTPORT_ACCEL || "auto" }); try { await vm.guest.run("true"); } finally { await vm.close(); } };';

/** A whole Jest, ms. */
async function timed(root, accel, args) {
  const began = performance.now();
  const child = spawn(process.execPath, [JEST, ...args], { cwd: root, stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ROOTPORT_ACCEL: accel, ROOTPORT_REPORT: 'off', CI: '1' } });
  let said = '';
  child.stderr.on('data', (chunk) => { said += chunk; });
  const code = await new Promise((resolve) => { child.on('close', resolve); });
  if (code !== 0) throw new Error(`jest ${args.join(' ')} exited with ${code}:\n${said}`);
  return performance.now() - began;
}

export async function bench({ rounds, accel }) {
  const root = mkdtempSync(join(tmpdir(), 'tests-bench-'));
  try {
    mkdirSync(join(root, 'node_modules'));
    symlinkSync(PACKAGE, join(root, 'node_modules/rootport'));
    writeFileSync(join(root, 'package.json'), '{ "type": "module", "jest": { "preset": "rootport" } }');
    writeFileSync(join(root, 'restored.suite.js'), suite(RESTORED, TESTS));
    writeFileSync(join(root, 'booted.suite.js'), suite(BOOTED, TESTS));
    for (let file = 0; file < FILES; file += 1) writeFileSync(join(root, `part-${file}.suite.js`), suite(RESTORED, 3));
    const sides = { restored: ['restored'], booted: ['booted'], one: ['part-', '--maxWorkers=1'], two: ['part-', '--maxWorkers=2'] };
    const times = { restored: [], booted: [], one: [], two: [] };
    await timed(root, accel, sides.restored); // the snapshot is there
    const names = Object.keys(sides);
    for (let round = 0; round < Math.min(rounds, ROUNDS_MAX); round += 1) {
      for (let turn = 0; turn < names.length; turn += 1) {
        const name = names[(turn + round) % names.length];
        times[name].push(await timed(root, accel, sides[name]));
      }
    }
    console.log(`tests: ${TESTS} with a fresh kernel each in one file; ${3 * FILES} in ${FILES} files, on one worker and on two`);
    for (const name of names) console.log(`        ${name}: ${spread(times[name].map((ms) => ms / 1000), 1, ' s')}`);
    verdict('two workers / one', ratios(times.two, times.one), 1);
    return verdict('tests with a restored kernel each / with a booted one', ratios(times.restored, times.booted), 0.3);
  } finally {
    rmSync(root, { recursive: true });
  }
}
