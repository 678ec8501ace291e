// Cold boot to the first SSH command answered: ours against the same kernel's bzImage with a plain command
// line, and against the time that the kernel itself takes to reach init. Paired and rotated.
import { boot } from 'rootport';
import { ratios, spread, verdict } from './statistics.mjs';

async function once(bootMode, accel) {
  const began = performance.now();
  const machine = await boot({ bootMode, accel });
  try {
    await machine.guest.run('true');
    const totalMs = performance.now() - began;
    const { stdout } = await machine.guest.run('dmesg | grep "Run /init"');
    return { totalMs, kernelMs: Number(/\[ *([\d.]+)\]/.exec(stdout)[1]) * 1000, why: machine.description };
  } finally {
    await machine.close();
  }
}

export async function bench({ rounds, accel }) {
  const quick = [], plain = [];
  await once('quick', accel); // warms the page cache for both
  for (let round = 0; round < rounds; round += 1) {
    for (const mode of round % 2 === 0 ? ['quick', 'plain'] : ['plain', 'quick']) {
      (mode === 'quick' ? quick : plain).push(await once(mode, accel));
    }
  }
  console.log(`boot: ${quick[0].why}`);
  console.log(`        ours to the first command: ${spread(quick.map((one) => one.totalMs), 0, ' ms')}`);
  console.log(`        bzImage, plain command line: ${spread(plain.map((one) => one.totalMs), 0, ' ms')}`);
  console.log(`        our kernel to init: ${spread(quick.map((one) => one.kernelMs), 0, ' ms')}`);
  return [
    verdict('boot to first command / bzImage with a plain command line', ratios(quick.map((one) => one.totalMs), plain.map((one) => one.totalMs)), 0.45),
    verdict('boot to first command / kernel alone to init', quick.map((one) => one.totalMs / one.kernelMs), 1.4),
  ].every(Boolean);
}
