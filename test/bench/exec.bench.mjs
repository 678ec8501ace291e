// A command on an open connection, and one through the kept shell.
import { boot } from 'rootport';
import { spread, verdict } from './statistics.mjs';

async function times(rounds, work) {
  const values = [];
  for (let round = 0; round < rounds; round += 1) {
    const began = performance.now();
    await work();
    values.push(performance.now() - began);
  }
  return values;
}

export async function bench({ accel }) {
  const machine = await boot({ accel });
  try {
    await times(10, () => machine.guest.run('true'));
    const exec = await times(200, () => machine.guest.run('true'));
    const shell = await times(200, () => machine.guest.shell.run('true'));
    console.log(`exec: ${machine.description}`);
    console.log(`        kept shell: ${spread(shell, 1, ' ms')}`);
    return verdict('exec on an open connection', exec, 20, ' ms');
  } finally {
    await machine.close();
  }
}
