// A plain QEMU that takes a machine's saved state, with our command line and our files and without rootport: what a restore
// is held against. Its memory, of which every copy needs one of its own, is filled before it starts: timed with it and without.
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openSnapshot } from '../../dist/machine/snapshot-directory.js';
import { closeFd, createMemfd } from '../../dist/native/index.js';

/** The files of the one snapshot that this process keeps. */
export function snapshotDirectory() {
  const found = readdirSync(tmpdir()).filter((name) => name.startsWith(`rootport-snapshot--${process.pid}-`));
  if (found.length !== 1) throw new Error(`${found.length} snapshots of this process in ${tmpdir()}`);
  return join(tmpdir(), found[0]);
}

/** What QEMU is started with: a restored machine's own words. x-ignore-shared is no property to be set there, so that the monitor says the rest. */
export function incomingCommand(machine) {
  const { command: [file, ...args], env } = machine.innards.process.options;
  return { file, args, env };
}

/** From its start to its RESUME, ms; and from before its memory was filled. */
export async function loadBare({ file, args, env }, directory) {
  const { memory, record } = await openSnapshot(directory);
  const first = performance.now();
  const fd = createMemfd('bench', record.memoryBytes);
  await memory.load(fd);
  await memory.close();
  const began = performance.now();
  const child = spawn(file, args, { env, stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe', fd] });
  closeFd(fd);
  for (const stream of [child.stdio[3], child.stdio[4]]) stream.on('error', () => {}).resume(); // its end is seen as an exit
  try {
    return await new Promise((resolve, reject) => {
      let said = '', stderr = '';
      child.stderr.on('data', (chunk) => { stderr += chunk; });
      child.on('exit', (code) => reject(new Error(`QEMU ended with ${code}: ${stderr}`)));
      child.stdio[3].on('data', (chunk) => {
        said += chunk;
        if (said.includes('"RESUME"')) resolve({ started: performance.now() - began, filled: performance.now() - first });
      });
      for (const [execute, argument] of [
        ['qmp_capabilities', {}], ['migrate-set-capabilities', { capabilities: [{ capability: 'x-ignore-shared', state: true }] }],
        ['migrate-incoming', { uri: `exec:cat ${join(directory, 'state')}` }],
      ]) child.stdio[3].write(`${JSON.stringify({ execute, arguments: argument })}\n`);
    });
  } finally {
    child.removeAllListeners('exit');
    const gone = new Promise((resolve) => { child.once('close', resolve); });
    child.kill('SIGKILL');
    await gone;
  }
}

/** Of a machine that was just restored: when its QEMU said RESUME, on performance.now()'s clock. */
export function resumedAt(machine) {
  const event = machine.innards.trouble.recorder.since().events.find(({ lane, text }) => lane === 'qmp' && text === 'event RESUME');
  if (event === undefined) throw new Error(`no RESUME of ${machine.description}`);
  return event.atMs;
}
