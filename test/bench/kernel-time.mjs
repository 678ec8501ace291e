// How long the kernel itself takes to reach init: from its entry to "Run /init". Its own stamps do not tell:
// printk's clock starts only when the TSC has been calibrated, which is some 150 ms after the entry under TCG.
import { readFile } from 'node:fs/promises';

/** Extra QEMU arguments: the moment at which the PVH loader reads the kernel's entry point goes to `log`. */
export function entryTrace(log) {
  return ['-msg', 'timestamp=on', '-trace', 'enable=fw_cfg_select', '-D', log];
}

/** Milliseconds from the kernel's entry to "Run /init", and the same by the kernel's own stamps. */
export async function kernelTime(machine, log) {
  // FW_CFG_KERNEL_ENTRY is the last item that pvh.bin reads before it jumps (pc-bios/optionrom/pvh_main.c).
  const entry = [...(await readFile(log, 'utf8')).matchAll(/@(\d+)[:.](\d{6}):fw_cfg_select .*kernel_entry/g)].at(-1);
  if (entry === undefined) throw new Error('QEMU traced no read of the kernel\'s entry: a build without the log trace backend?');
  const entryMs = Number(entry[1]) * 1000 + Number(entry[2]) / 1000;
  const { stdout } = await machine.guest.run('dmesg | grep "Run /init"');
  const stampMs = stamp(stdout);
  return { fromEntryMs: stampMs + await clockOffset(machine) - entryMs, byStampsMs: stampMs };
}

/** Wall clock of the host minus the guest's printk clock: each mark was stamped between two of our own looks. */
async function clockOffset(machine) {
  let low = -Infinity, high = Infinity;
  for (let i = 0; i < 20; i += 1) {
    const before = wallMs();
    await machine.guest.shell.run(`echo rootport-bench-${i} >/dev/kmsg`);
    const after = wallMs();
    const stampMs = stamp((await machine.guest.shell.run(`dmesg | grep -F rootport-bench-${i}`)).stdout);
    low = Math.max(low, before - stampMs);
    high = Math.min(high, after - stampMs);
  }
  return (low + high) / 2;
}

function wallMs() {
  return performance.timeOrigin + performance.now();
}

function stamp(line) {
  return Number(/\[ *([\d.]+)\]/.exec(line)[1]) * 1000;
}
