// Cold boot to the first SSH command answered: ours against the same kernel's bzImage with a plain command
// line, and against the time that the kernel itself takes to reach init. Paired and rotated.
import { join } from 'node:path';
import { boot } from 'rootport';
import { withDir } from 'tmp-promise';
import { entryTrace, kernelTime } from './kernel-time.mjs';
import { ratios, spread, verdict } from './statistics.mjs';

function once(bootMode, accel) {
  return withDir(async ({ path }) => {
    const log = join(path, 'trace.log');
    const began = performance.now();
    const machine = await boot({ bootMode, accel, extraArgs: bootMode === 'quick' ? entryTrace(log) : [] });
    try {
      await machine.guest.run('true');
      const totalMs = performance.now() - began;
      return { totalMs, kernel: bootMode === 'quick' ? await kernelTime(machine, log) : undefined, why: machine.description };
    } finally {
      await machine.close();
    }
  }, { prefix: 'rootport-bench-', unsafeCleanup: true });
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
  console.log(`        our kernel from its entry to init: ${spread(quick.map((one) => one.kernel.fromEntryMs), 0, ' ms')}`);
  console.log(`        the same by its own stamps, whose clock starts late: ${spread(quick.map((one) => one.kernel.byStampsMs), 0, ' ms')};`
    + ` boot / that: ${spread(quick.map((one) => one.totalMs / one.kernel.byStampsMs))}`);
  return [
    verdict('boot to first command / bzImage with a plain command line', ratios(quick.map((one) => one.totalMs), plain.map((one) => one.totalMs)), 0.45),
    verdict('boot to first command / kernel alone, entry to init', quick.map((one) => one.totalMs / one.kernel.fromEntryMs), 1.4),
  ].every(Boolean);
}
