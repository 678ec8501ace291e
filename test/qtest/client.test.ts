// The qtest client against a peer that says what the test tells it to, over a real Unix socket. What QEMU itself
// answers is in test/machine/bare.vm.test.ts.
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { DeadlineError, ProtocolError, QtestError, UsageError } from '../../src/errors.ts';
import { QtestClient, type QtestOptions } from '../../src/qtest/client.ts';
import { socketPair } from '../qmp/scripted-peer.ts';

let pair: Awaited<ReturnType<typeof socketPair>>;
let qtest: QtestClient;
let received: string[];
let answer: (command: string) => string;

beforeEach(async () => {
  pair = await socketPair();
  received = [];
  answer = () => 'OK\n';
  let text = '';
  pair.far.on('data', (chunk: Buffer) => {
    const lines = (text + chunk.toString('utf8')).split('\n');
    text = lines.pop() ?? '';
    for (const line of lines) {
      received.push(line);
      pair.far.write(answer(line));
    }
  });
  qtest = new QtestClient(pair.near, { timeoutMs: 1000 });
});
afterEach(() => pair.remove());

/** The only client of the connection, with other options. */
function anew(options: QtestOptions): QtestClient {
  pair.near.removeAllListeners();
  return new QtestClient(pair.near, options);
}

describe('commands', () => {
  test('are written as QEMU reads them, each width with its letter', async () => {
    answer = (line) => (/^(in|read)/.test(line) ? 'OK 0x1f\n' : 'OK\n');
    expect(await qtest.ioRead(0x60, 1)).toBe(0x1f);
    await qtest.ioWrite(0xcf8, 4, 0x80000000);
    expect(await qtest.memoryRead(0xfee00000n, 8)).toBe(0x1fn);
    await qtest.memoryWrite(0x1000n, 2, 0xabcdn);
    await qtest.fill(0x2000n, 16, 0xff);
    await qtest.interceptIn('ioapic');
    expect(received).toEqual([
      'inb 0x60', 'outl 0xcf8 0x80000000', 'readq 0xfee00000', 'writew 0x1000 0xabcd', 'memset 0x2000 0x10 0xff', 'irq_intercept_in ioapic',
    ]);
  });

  test('carry blocks of bytes as base64, in pieces of a MiB', async () => {
    await qtest.write(0x1000n, Uint8Array.of(1, 2, 3));
    await qtest.write(0n, new Uint8Array(2 ** 20 + 1));
    expect(received.map((line) => line.slice(0, 24))).toEqual(['b64write 0x1000 0x3 AQID', 'b64write 0x0 0x100000 AA', 'b64write 0x100000 0x1 AA']);
    answer = () => 'OK AQID\n';
    expect(await qtest.read(0x1000n, 3)).toEqual(Uint8Array.of(1, 2, 3));
    await expect(qtest.read(0x1000n, 4)).rejects.toThrow(/3 bytes came/);
  });

  test('that are on their way at once get each its own answer', async () => {
    answer = (line) => `OK 0x${Number(line.split(' ')[1]).toString(16)}\n`;
    expect(await Promise.all([1, 2, 3].map((port) => qtest.ioRead(port, 1)))).toEqual([1, 2, 3]);
  });

  test('that QEMU refuses are a QtestError with both sides\' words; the next one works', async () => {
    answer = () => 'FAIL Unknown device\n';
    const refusal = await qtest.interceptIn('nobody').catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(QtestError);
    expect(refusal).toMatchObject({ message: 'qtest irq_intercept_in nobody: Unknown device', sent: 'irq_intercept_in nobody', received: 'FAIL Unknown device' });
    answer = () => 'OK 0x0\n';
    expect(await qtest.ioRead(0, 1)).toBe(0);
  });

  test('that QEMU would end itself over are refused before they are sent', async () => {
    await expect(qtest.ioRead(0xffff, 2)).rejects.toThrow(UsageError);
    await expect(qtest.memoryWrite(-1n, 4, 0n)).rejects.toThrow(UsageError);
    await expect(qtest.memoryWrite(0n, 1, 0x100n)).rejects.toThrow(/256 does not fit into 1 bytes/);
    await expect(qtest.interceptIn('two words')).rejects.toThrow(/no QOM path/);
    expect(received).toEqual([]);
  });

  test('without an answer reject by name, and a late answer is not the next one\'s', async () => {
    const impatient = anew({ timeoutMs: 20 });
    answer = () => '';
    const late = await impatient.ioRead(0x10, 1).catch((error: unknown) => error);
    expect(late).toBeInstanceOf(DeadlineError);
    expect(late).toMatchObject({ waitedFor: 'QEMU\'s answer to qtest inb 0x10' });
    answer = () => 'OK 0x1\nOK 0x2\n';
    expect(await impatient.ioRead(0x11, 1)).toBe(2);
  });
});

describe('interrupt lines', () => {
  test('between answers are levels and events, and resolve who waits', async () => {
    answer = () => 'IRQ raise 20\nOK\nIRQ lower 20\nIRQ raise 7\n';
    const lowered = qtest.waitForIrq(7, 1, { timeoutMs: 500 });
    await qtest.fill(0n, 1, 0);
    await lowered;
    expect(qtest.irqsRaised).toEqual([7]);
    expect([qtest.irqLevel(20), qtest.irqLevel(7)]).toEqual([0, 1]);
    expect(qtest.irqEvents).toEqual([{ line: 20, level: 1 }, { line: 20, level: 0 }, { line: 7, level: 1 }]);
  });

  test('that do not move end the wait with their name', async () => {
    await expect(qtest.waitForIrq(21, 1, { timeoutMs: 10 })).rejects.toThrow(/waited 10 ms for interrupt line 21 to be raised/);
  });
});

describe('a connection', () => {
  test('that speaks something else ends with a ProtocolError, and so does every command after', async () => {
    answer = () => '{"QMP": {}}\n';
    await expect(qtest.ioRead(0, 1)).rejects.toThrow(/qtest: QEMU sent "\{\\"QMP/);
    await expect(qtest.ioRead(0, 1)).rejects.toThrow(ProtocolError);
  });

  test('that answers without being asked ends', async () => {
    answer = () => 'OK\nOK\n';
    await qtest.fill(0n, 1, 0);
    await expect(qtest.ioRead(0, 1)).rejects.toThrow(/an answer to no command/);
  });

  test('that QEMU closes rejects what is pending, with the reason if there is one', async () => {
    const asked = anew({ timeoutMs: 1000, endReason: () => new UsageError('it was switched off') });
    answer = () => { pair.far.destroy(); return ''; };
    await expect(Promise.all([asked.ioRead(0, 1)])).rejects.toThrow('it was switched off');
  });

  test('whose machine is in trouble rejects with the trouble', async () => {
    const trouble = new AbortController();
    const one = anew({ timeoutMs: 1000, signal: trouble.signal });
    answer = () => '';
    const pending = one.ioRead(0, 1);
    trouble.abort(new UsageError('a back end failed'));
    await expect(pending).rejects.toThrow('a back end failed');
  });
});
