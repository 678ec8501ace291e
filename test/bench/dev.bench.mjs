// The loop at a desk: from the save of a module's one source file to the result that `rootport dev` prints, with the module
// loaded beside its device, with one test of its suite, and with the suite whole (four tests, each with a fresh kernel).
// The project is one of `rootport new`. Rotated. The load of the host is told, for this is a figure in seconds, no ratio.
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { spread, verdict } from './statistics.mjs';

const PACKAGE = fileURLToPath(new URL('../..', import.meta.url));
const MAIN = join(PACKAGE, 'dist/cli/main.js');
const BOUND_MS = 3000;
/** What is made ready for the next round while an author reads and writes; less than any author takes. */
const AUTHOR_MS = 4000;
const SIDES = {
  'the module loaded beside its device': ['edu'],
  'one test of its suite': ['desk.suite.ts', '-t', '5! = 120'],
  'its suite of four tests': ['desk.suite.ts'],
};

/** A `rootport dev` that runs. */
class Dev {
  #said = '';
  #wake = () => {};

  constructor(directory, args, accel) {
    this.child = spawn(process.execPath, [MAIN, 'dev', '--accel', accel, 'desk', ...args], { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => { this.#said += text; this.#wake(); });
    }
    this.child.once('exit', () => { this.ended = true; this.#wake(); });
  }

  /** The end of the round that is under way. */
  async round(verb) {
    for (;;) {
      const end = /^--- (\w+), .*\n/m.exec(this.#said);
      if (end?.[1] === verb) return void (this.#said = '');
      if (end !== null || this.ended) throw new Error(`rootport dev: no round that ${verb}:\n${this.#said}`);
      await new Promise((resolve) => { this.#wake = resolve; });
    }
  }

  async close() {
    if (this.ended) return;
    const over = new Promise((resolve) => { this.child.once('exit', resolve); });
    this.child.kill('SIGINT');
    await over;
  }
}

export async function bench({ rounds, accel }) {
  const parent = mkdtempSync(join(tmpdir(), 'rootport-bench-'));
  const directory = join(parent, 'desk'), source = join(directory, 'desk/desk.c');
  const times = Object.fromEntries(Object.keys(SIDES).map((name) => [name, []]));
  const loads = [];
  try {
    execFileSync(process.execPath, [MAIN, 'new', directory]);
    mkdirSync(join(directory, 'node_modules'));
    symlinkSync(PACKAGE, join(directory, 'node_modules/rootport'));
    symlinkSync(join(PACKAGE, 'node_modules/@jest'), join(directory, 'node_modules/@jest'));
    const text = readFileSync(source, 'utf8');
    const names = Object.keys(SIDES);
    for (let round = 0; round < rounds; round += 1) {
      for (let i = 0; i < names.length; i += 1) {
        const name = names[(round + i) % names.length];
        const verb = SIDES[name].includes('edu') ? 'loaded' : 'passed';
        const dev = new Dev(directory, SIDES[name], accel);
        try {
          await dev.round(verb);
          await new Promise((resolve) => { setTimeout(resolve, AUTHOR_MS); });
          const beganAt = performance.now();
          // What no build before had: the cache must not know it.
          writeFileSync(source, `${text}/* ${process.pid}.${round}.${i} */\n`);
          await dev.round(verb);
          times[name].push(performance.now() - beganAt);
          loads.push(loadavg()[0]);
        } finally {
          await dev.close();
        }
      }
    }
  } finally {
    rmSync(parent, { recursive: true, force: true });
  }
  console.log(`dev: from the save of one file to the printed result; load of the host ${spread(loads, 1)}`);
  return Object.entries(times).map(([name, values]) => verdict(`save to result, ${name}`, values, BOUND_MS, ' ms')).every(Boolean);
}
