// A machine restored from a snapshot, to its first SSH command answered and to its end, against our own cold boot:
// what a test with a fresh kernel costs, five for a hundred. Paired and rotated. And what an idle copy takes beyond its
// guest's memory.
import { readFileSync } from 'node:fs';
import { Snapshot, boot } from 'rootport';
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
    verdict('a test\'s machine from begin to end, restored / booted', ratios(wholes.restore, wholes.boot), 0.3);
    return verdict('restore to first command / our own cold boot', ratios(times.restore, times.boot), 0.25);
  } finally {
    await snapshot.close();
  }
}
