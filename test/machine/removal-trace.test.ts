// Lines as ftrace writes them (6.1).
import { expect, test } from '@jest/globals';
import { GuestCommandError, ProtocolError } from '../../src/errors.ts';
import type { GuestShell } from '../../src/guest/kept-shell.ts';
import { armRemovalTrace, readRemovals } from '../../src/machine/removal-trace.ts';

const says = (stdout: string): GuestShell => ({ run: async () => ({ stdout, stderr: '' }) });
const at = (task: number): string => `     kworker/0:1-${task}      [000] .....     4.458332: `;
const begin = (bdf: string, task = 14): string => `${at(task)}remove_begin: (pci_device_remove+0x0/0xb0) bdf="${bdf}"\n`;
const endOf = (task: number): string => `${at(task)}remove_end: (device_release_driver_internal+0x19c/0x200 <- pci_device_remove)\n`;
const end = endOf(14);

const MARK = 'rootport-1';
const removalsOf = (text: string): ReturnType<typeof readRemovals> => readRemovals(says(text), MARK);

test('no line, no removal', async () => {
  expect(await removalsOf('')).toEqual([]);
});

test('a removal that was entered and left has returned; one that was only entered has not', async () => {
  expect(await removalsOf(begin('0000:01:00.0') + end + begin('0000:02:00.0'))).toEqual([
    { bdf: '0000:01:00.0', returned: true }, { bdf: '0000:02:00.0', returned: false },
  ]);
});

test('one inside another ends before it', async () => {
  expect(await removalsOf(begin('0000:00:10.0') + begin('0000:01:00.0') + end)).toEqual([
    { bdf: '0000:00:10.0', returned: false }, { bdf: '0000:01:00.0', returned: true },
  ]);
});

test('of two that tasks of their own remove at once, each ends for itself', async () => {
  expect(await removalsOf(begin('0000:01:00.0', 14) + begin('0000:02:00.0', 99) + endOf(14))).toEqual([
    { bdf: '0000:01:00.0', returned: true }, { bdf: '0000:02:00.0', returned: false },
  ]);
});

test('the same function twice is two removals, and an end without a beginning is none', async () => {
  expect(await removalsOf(end + begin('0000:01:00.0') + end + begin('0000:01:00.0') + end)).toHaveLength(2);
});

test('what came before the mark does not count; a buffer that lost the mark is read whole', async () => {
  const mark = '     sh-77      [001] .....     4.458340: tracing_mark_write: rootport-1\n';
  expect(await removalsOf(begin('0000:01:00.0') + mark + end + begin('0000:02:00.0'))).toEqual([{ bdf: '0000:02:00.0', returned: false }]);
  expect(await removalsOf(begin('0000:02:00.0') + end)).toHaveLength(1);
});

test('a kernel without kprobes has no witness; any other failure is told', async () => {
  const failing = (error: Error): GuestShell => ({ run: async () => { throw error; } });
  expect(await armRemovalTrace(says(''))).toBe(true);
  expect(await armRemovalTrace(failing(new GuestCommandError('echo', 1, undefined, '', 'nonexistent')))).toBe(false);
  await expect(armRemovalTrace(failing(new ProtocolError('the shell ended')))).rejects.toThrow(ProtocolError);
});
