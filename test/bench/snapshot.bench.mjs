// A machine restored from a snapshot, to its first SSH command answered, against our own cold boot. Paired and
// rotated.
import { Snapshot, boot } from 'rootport';
import { ratios, spread, verdict } from './statistics.mjs';

async function timed(make) {
  const began = performance.now();
  const machine = await make();
  try {
    await machine.guest.run('true');
    return performance.now() - began;
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
    const times = { restore: [], boot: [] };
    for (const name of Object.keys(sides)) await timed(sides[name]);
    for (let round = 0; round < rounds; round += 1) {
      for (const name of round % 2 === 0 ? ['restore', 'boot'] : ['boot', 'restore']) times[name].push(await timed(sides[name]));
    }
    console.log(`snapshot: ${description}; ${Math.round(snapshot.usedBytes / 2 ** 20)} MiB of memory in use`);
    for (const name of Object.keys(times)) console.log(`        ${name}, to the first command: ${spread(times[name], 0, ' ms')}`);
    return verdict('restore to first command / our own cold boot', ratios(times.restore, times.boot), 0.25);
  } finally {
    await snapshot.close();
  }
}
