import { PassThrough } from 'node:stream';
import { expect, jest, test } from '@jest/globals';
import { terminalProgress } from '../../src/packages/progress.ts';

test('where there is no terminal each step is a plain line, without escapes', () => {
  const stream = new PassThrough();
  const progress = terminalProgress(stream as unknown as NodeJS.WriteStream);
  progress.start('QEMU 10.0: downloading');
  progress.note('waiting');
  progress.succeed('QEMU 10.0: ready');
  progress.fail('Linux 6.1: not prepared');
  expect((stream.read() as Buffer).toString()).toBe(
    'rootport: QEMU 10.0: downloading\nrootport: waiting\nrootport: QEMU 10.0: ready\nrootport: Linux 6.1: not prepared\n');
});

test('updates there are a line every five seconds, with the step\'s title and whole percent', () => {
  const now = jest.spyOn(Date, 'now');
  try {
    const stream = new PassThrough();
    const progress = terminalProgress(stream as unknown as NodeJS.WriteStream);
    now.mockReturnValue(0);
    progress.start('QEMU');
    for (const [at, fraction] of [[4999, 0.1], [5000, 0.419], [9999, 0.6], [10_000, undefined]] as const) {
      now.mockReturnValue(at);
      progress.update(fraction, '90 packages');
    }
    expect((stream.read() as Buffer).toString()).toBe('rootport: QEMU\nrootport: QEMU 41 %: 90 packages\nrootport: QEMU: 90 packages\n');
  } finally {
    now.mockRestore();
  }
});
