// A machine restored from a snapshot, to its first SSH command answered and to its end, against our own cold boot:
// what a test with a fresh kernel costs, five for a hundred. Its state loaded, against a plain QEMU with the same command
// line and files. Paired and rotated. And what an idle copy takes beyond its guest's memory.
import { readFileSync } from 'node:fs';
import { Snapshot, boot } from 'rootport';
import { incomingCommand, loadBare, resumedAt, snapshotDirectory } from './bare-incoming.mjs';
import { ratios, spread, verdict } from './statistics.mjs';

async function timed(make) {
  const began = performance.now();
  const machine = await make();
  let first;
  try {
    await machine.guest.run('true');
    first = performance.now() - began;
  } finally {
    await machine.close();
  }
  return { first, whole: performance.now() - began };
}

/** Of an idle copy's QEMU: its own memory (RssAnon of proc(5)), without the guest's, which is a shared file. MiB. */
async function ownMemory(snapshot) {
  const machine = await snapshot.restore();
  try {
    await machine.guest.run('true');
    return Number(/^RssAnon:\s*(\d+) kB/m.exec(readFileSync(`/proc/${machine.innards.process.pid}/status`, 'utf8'))[1]) / 1024;
  } finally {
    await machine.close();
  }
}

/** Ours, to QEMU's RESUME, in which the memory is filled, and bare `-incoming`, with the filling and without. */
async function loads(snapshot, rounds) {
  const directory = snapshotDirectory();
  const first = await snapshot.restore();
  const command = incomingCommand(first);
  await first.close();
  const sides = {
    restore: async () => {
      const began = performance.now();
      const machine = await snapshot.restore();
      const at = resumedAt(machine) - began;
      await machine.close();
      return at;
    },
    bare: () => loadBare(command, directory),
  };
  const times = { restore: [], bare: [] };
  for (const name of Object.keys(sides)) await sides[name]();
  for (let round = 0; round < 2 * rounds; round += 1) {
    for (const name of round % 2 === 0 ? ['restore', 'bare'] : ['bare', 'restore']) times[name].push(await sides[name]());
  }
  const [started, filled] = ['started', 'filled'].map((name) => times.bare.map((one) => one[name]));
  console.log(`        to RESUME: restored ${spread(times.restore, 0, ' ms')}; bare -incoming ${spread(filled, 0, ' ms')}, ${spread(started, 0, ' ms')} of it after its memory was filled`);
  verdict('state loaded / bare -incoming whose memory is there already', ratios(times.restore, started), 1.5);
  return verdict('state loaded / bare -incoming with the same files', ratios(times.restore, filled), 1.5);
}

export async function bench({ rounds, accel }) {
  const template = await boot({ accel });
  const { description } = template;
  const snapshot = await Snapshot.take(template);
  try {
    const sides = { restore: () => snapshot.restore(), boot: () => boot({ accel }) };
    const times = { restore: [], boot: [] }, wholes = { restore: [], boot: [] };
    for (const name of Object.keys(sides)) await timed(sides[name]);
    for (let round = 0; round < rounds; round += 1) {
      for (const name of round % 2 === 0 ? ['restore', 'boot'] : ['boot', 'restore']) {
        const { first, whole } = await timed(sides[name]);
        times[name].push(first);
        wholes[name].push(whole);
      }
    }
    console.log(`snapshot: ${description}; ${Math.round(snapshot.usedBytes / 2 ** 20)} MiB of memory in use`);
    for (const name of Object.keys(times)) console.log(`        ${name}, to the first command: ${spread(times[name], 0, ' ms')}`);
    console.log(`        an idle copy takes ${Math.round(await ownMemory(snapshot))} MiB beyond its guest's memory (at most 80)`);
    await loads(snapshot, rounds);
    verdict('a test\'s machine from begin to end, restored / booted', ratios(wholes.restore, wholes.boot), 0.3);
    return verdict('restore to first command / our own cold boot', ratios(times.restore, times.boot), 0.25);
  } finally {
    await snapshot.close();
  }
}
