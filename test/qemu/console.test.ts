import { PassThrough } from 'node:stream';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { DeadlineError, GuestFault, MachineExitError } from '../../src/errors.ts';
import { Console } from '../../src/qemu/console.ts';

/** Lets a stream deliver what was written to it. */
const delivered = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const rejection = (work: Promise<unknown>): Promise<unknown> => work.then((value) => { throw new Error(`resolved with ${String(value)}`); }, (error: unknown) => error);

describe('Console', () => {
  test('keeps text from the first byte, without carriage returns and terminal escapes', async () => {
    const stream = new PassThrough();
    const console = new Console(stream);
    stream.write('\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\r\n[    0.000000] Linux version 6.1\r\r\nlogin: ');
    await delivered();
    expect(console.text).toBe('SeaBIOS\n[    0.000000] Linux version 6.1\nlogin: ');
    expect(console.lines.map(({ text, number }) => [number, text])).toEqual([[0, 'SeaBIOS'], [1, '[    0.000000] Linux version 6.1']]);
    expect(console.tail(2)).toBe('[    0.000000] Linux version 6.1\nlogin: ');
  });

  test('text cut anywhere, inside UTF-8 characters too, gives the same lines', async () => {
    const expected = ['größer', '', '🐧 ready', 'x'];
    const bytes = Buffer.from(`${expected.join('\r\n')}\r\n`);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 40, maxLength: 40 }), async (cuts) => {
        const stream = new PassThrough();
        const console = new Console(stream);
        let at = 0;
        for (const cut of cuts) stream.write(bytes.subarray(at, (at += cut)));
        stream.write(bytes.subarray(at));
        await delivered();
        expect(console.lines.map(({ text }) => text)).toEqual(expected);
      }),
      { numRuns: 20 },
    );
  });

  test('waitForLine takes a line that has already come', async () => {
    const stream = new PassThrough();
    const console = new Console(stream);
    stream.write('one\ntwo\n');
    await delivered();
    expect((await console.waitForLine(/^tw/, { timeoutMs: 1000 })).number).toBe(1);
  });

  test('waitForLine from a mark passes over what came before it', async () => {
    const stream = new PassThrough();
    const console = new Console(stream);
    stream.write('ready 1\n');
    await delivered();
    const waiting = console.waitForLine('ready', { timeoutMs: 1000, from: console.mark() });
    stream.write('ready 2\n');
    expect((await waiting).text).toBe('ready 2');
  });

  test('a global pattern matches every line as if it were new', async () => {
    const stream = new PassThrough();
    const console = new Console(stream);
    const pattern = /ready/g;
    stream.write('ready\n');
    await delivered();
    await console.waitForLine(pattern, { timeoutMs: 1000 });
    expect((await console.waitForLine(pattern, { timeoutMs: 20 })).number).toBe(0);
  });

  test('a line that does not come is a DeadlineError that says what was waited for', async () => {
    const error = await rejection(new Console(new PassThrough()).waitForLine(/ready/, { timeoutMs: 20, what: "the guest's ready mark" }));
    expect(error).toBeInstanceOf(DeadlineError);
    expect((error as Error).message).toContain("the guest's ready mark");
  });

  test('an unfinished line does not end a wait', async () => {
    const stream = new PassThrough();
    const waiting = rejection(new Console(stream).waitForLine('ready', { timeoutMs: 30 }));
    stream.write('ready');
    expect(await waiting).toBeInstanceOf(DeadlineError);
  });

  test('a signal ends the wait at once with its reason', async () => {
    const abort = new AbortController();
    const waiting = rejection(new Console(new PassThrough()).waitForLine('ready', { timeoutMs: 5000, signal: abort.signal }));
    const fault = new GuestFault('Kernel panic', '');
    abort.abort(fault);
    expect(await waiting).toBe(fault);
  });

  test('the end of the stream ends waits with the reason that endReason gives', async () => {
    const stream = new PassThrough();
    const exit = new MachineExitError('QEMU exited with 1', 1, undefined);
    const console = new Console(stream, { endReason: () => Promise.resolve(exit) });
    const waiting = rejection(console.waitForLine('ready', { timeoutMs: 5000 }));
    stream.end('half a li');
    expect(await waiting).toBe(exit);
    expect(await rejection(console.waitForLine('ready', { timeoutMs: 5000 }))).toBe(exit);
    expect(console.lines.map(({ text }) => text)).toEqual(['half a li']);
  });

  test('the end of the stream without endReason is a MachineExitError', async () => {
    const stream = new PassThrough();
    const waiting = rejection(new Console(stream).waitForLine('ready', { timeoutMs: 5000 }));
    stream.destroy();
    expect(await waiting).toBeInstanceOf(MachineExitError);
  });

  test('a line that the stream ends with still reaches a wait', async () => {
    const stream = new PassThrough();
    const waiting = new Console(stream).waitForLine('ready', { timeoutMs: 5000 });
    stream.end('ready');
    expect((await waiting).text).toBe('ready');
  });

  test('listeners hear whole lines until they are taken off', async () => {
    const stream = new PassThrough();
    const console = new Console(stream);
    const heard: string[] = [];
    const off = console.onLine(({ text }) => heard.push(text));
    stream.write('a\nb\nc');
    await delivered();
    off();
    stream.write('\nd\n');
    await delivered();
    expect(heard).toEqual(['a', 'b']);
  });

  test('what is kept is bounded, the newest stays, and the text says how much was dropped', async () => {
    const stream = new PassThrough();
    const console = new Console(stream, { keptCharsMax: 1000 });
    for (let i = 0; i < 5000; i++) stream.write(`line ${i}\n`);
    await delivered();
    expect(console.lines.at(-1)).toMatchObject({ number: 4999, text: 'line 4999' });
    const total = Array.from({ length: 5000 }, (_, i) => `line ${i}\n`).join('').length;
    const kept = console.lines.reduce((sum, { text }) => sum + text.length + 1, 0);
    expect(kept).toBeLessThanOrEqual(1000);
    expect(console.droppedChars).toBe(total - kept);
    expect(console.text).toMatch(/^\.\.\. \d+ characters of console dropped \.\.\.\nline \d+\n/);
    expect(await rejection(console.waitForLine(/^line 0$/, { timeoutMs: 10 }))).toBeInstanceOf(DeadlineError);
  });

  test('a guest that never ends its line cannot make the memory grow', async () => {
    const stream = new PassThrough();
    const console = new Console(stream, { keptCharsMax: 200_000 });
    for (let i = 0; i < 20; i++) stream.write('x'.repeat(100_000));
    await delivered();
    expect(console.text.length).toBeLessThan(400_000);
    expect(console.lines[0]?.text).toHaveLength(65536);
  });
});
