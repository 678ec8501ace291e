// What ends every wait at once: QEMU's exit, a panic, an oops. Each from a wait that would last minutes.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { GuestFault, MachineExitError, UsageError } from '../../src/errors.ts';
import { boot } from '../../src/machine/boot.ts';
import { restore } from '../../src/machine/kept-snapshots.ts';
import type { Machine } from '../../src/machine/machine.ts';

let machine: Machine | undefined;
afterEach(async () => { await machine?.close(); });

async function hanging(running: Machine): Promise<{ error: Promise<Error>; }> {
  const waits = [
    running.guest.run('sleep 600', { timeoutMs: 600_000 }),
    running.console.waitForLine('never', { timeoutMs: 600_000, signal: running.signal }),
    running.qmp.expectEvent('NEVER', () => true, { timeoutMs: 600_000 }),
  ];
  const errors = waits.map((wait) => wait.then(() => { throw new Error('it ended'); }, (error: Error) => error));
  return {
    error: Promise.all(errors).then((all) => {
      expect(new Set(all.map((one) => one.constructor)).size).toBe(1);
      return all[0] as Error;
    }),
  };
}

test('a QEMU that is killed fails every wait at once, with its signal and the console', async () => {
  machine = await boot();
  const { error } = await hanging(machine);
  process.kill(machine.innards.process.pid, 'SIGKILL');
  const exit = await error as MachineExitError;
  expect(exit).toBeInstanceOf(MachineExitError);
  expect(exit.signal).toBe('SIGKILL');
  expect(exit.message).toMatch(/QEMU was killed by SIGKILL unexpectedly/);
  expect(exit.message).toMatch(/rootport-ready/);
});

test('a guest that powers off fails every wait at once', async () => {
  machine = await restore();
  const { error } = await hanging(machine);
  await machine.guest.run('(sleep 0.2; poweroff -f) >/dev/null 2>&1 </dev/null &');
  const exit = await error as MachineExitError;
  expect(exit).toBeInstanceOf(MachineExitError);
  expect(exit.exitCode).toBe(0);
});

test.each([
  ['a panic', 'echo 0 >/proc/sys/kernel/panic; echo 1 >/proc/sys/kernel/panic_on_oops; echo c >/proc/sysrq-trigger', /sysrq|NULL pointer|panic/i],
  ['an oops', 'echo 0 >/proc/sys/kernel/panic_on_oops; echo c >/proc/sysrq-trigger', /sysrq|NULL pointer|panic/i],
])('%s in the guest fails every wait within a second of its report, as a GuestFault that quotes it', async (_, command, title) => {
  machine = await restore();
  const { error } = await hanging(machine);
  const reported = machine.console.waitForLine(/Kernel panic|Oops|BUG:|sysrq: Trigger a crash/, { timeoutMs: 20_000 }).then(() => Date.now());
  await machine.guest.start(command);
  const fault = await error as GuestFault;
  const afterReport = Date.now() - await reported;
  expect(fault).toBeInstanceOf(GuestFault);
  expect(fault.title).toMatch(title);
  expect(fault.report).toMatch(/sysrq|RIP|Call Trace/);
  expect(afterReport).toBeLessThan(1000);
  // QEMU lives, and what the kernel died of can be had.
  const core = join(machine.innards.directory, 'core');
  const sizeBytes = await machine.dumpMemory(core, { format: 'kdump-zlib' });
  expect((await readFile(core)).toString('latin1', 0, 8)).toBe('KDUMP   ');
  expect(sizeBytes).toBeLessThan(machine.innards.shape.memoryMiB * 2 ** 20);
  await expect(machine.dumpMemory(core, { format: 'elf32' as 'elf' })).rejects.toThrow(UsageError);
});
