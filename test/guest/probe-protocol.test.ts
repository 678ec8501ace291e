import { execFileSync } from 'node:child_process';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError, UsageError } from '../../src/errors.ts';
import {
  askScript, checkBdf, errnoNameOf, formatNumber, parseAnswer, parseCounts, parseEvents, parsePending,
} from '../../src/guest/probe-protocol.ts';

const BDF = '0000:01:00.0';

function thrownBy(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

describe('parseAnswer', () => {
  test('an ok with a value gives the value, without one the empty string', () => {
    expect(parseAnswer(BDF, 'mem read 32 0 0x0', 'ok 0x10000ed\n')).toEqual({ lines: [], value: '0x10000ed' });
    expect(parseAnswer(BDF, 'irq free', 'ok\n')).toEqual({ lines: [], value: '' });
  });

  test('lines of data come before the ok', () => {
    expect(parseAnswer(BDF, 'info', 'protocol 1\nconfig 256\nok\n').lines).toEqual(['protocol 1', 'config 256']);
  });

  test.each(['EINVAL', 'ERANGE', 'ENXIO', 'ENOENT', 'EBUSY', 'EOPNOTSUPP'])('a refusal with %s is a UsageError that names it', (name) => {
    const error = thrownBy(() => parseAnswer(BDF, 'mem read 32 0 0x100000', `err 34 ${name} the BAR has 0x100000 bytes\n`));
    expect(error).toBeInstanceOf(UsageError);
    expect((error as UsageError).message).toBe(
      `rootport_probe refused "mem read 32 0 0x100000" on ${BDF}: ${name} (34), the BAR has 0x100000 bytes`);
    expect(errnoNameOf(error)).toBe(name);
  });

  test.each(['ENODEV', 'EIO', 'ENOMEM', 'ENOSPC', 'ETIMEDOUT'])('a refusal with %s is a ProtocolError with what was sent', (name) => {
    const error = thrownBy(() => parseAnswer(BDF, 'info', `err 19 ${name} \n`));
    expect(error).toBeInstanceOf(ProtocolError);
    expect(error).toMatchObject({ sent: 'info', received: { errno: 19, errnoName: name, reason: '' } });
    expect(errnoNameOf(error)).toBe(name);
  });

  test.each(['', 'ok0x1\n', 'garbage\n', 'err\n', 'err x EIO y\n', 'protocol 1\n'])('%j is no answer', (text) => {
    expect(() => parseAnswer(BDF, 'info', text)).toThrow(/gave no answer to "info"/);
  });

  test('an error after which the shell line adds its own is the module\'s error', () => {
    expect(() => parseAnswer(BDF, 'irq counts', 'err 2 ENOENT no vectors are allocated\nerr 19 ENODEV the probe is not bound to it\n'))
      .toThrow(/ENOENT/);
  });

  test('a long command is cut short in the message', () => {
    const error = thrownBy(() => parseAnswer(BDF, `dma write 0x0 ${'00'.repeat(3000)}`, 'err 34 ERANGE x\n')) as Error;
    expect(error.message.length).toBeLessThan(300);
  });

  test('errnoNameOf knows nothing of other errors', () => {
    expect(errnoNameOf(new Error('x', { cause: 'ENODEV' }))).toBeUndefined();
    expect(errnoNameOf(undefined)).toBeUndefined();
  });
});

describe('parseCounts', () => {
  test('a vector that was handled, one that never was, and an INTx line', () => {
    expect(parseCounts([
      'v 4 28 3 1 2493427717 0 0 0x0',
      'v 5 29 0 -1 0 1 0 0x0',
      'v 0 20 18446744073709 0 3601983630 0 7 0x80000003',
    ])).toEqual([
      { vector: 4, irq: 28, count: 3, lastCpu: 1, lastTimeNs: 2493427717n, masked: false, refused: 0, lastStatus: 0n },
      { vector: 5, irq: 29, count: 0, lastCpu: undefined, lastTimeNs: undefined, masked: true, refused: 0, lastStatus: 0n },
      { vector: 0, irq: 20, count: 18446744073709, lastCpu: 0, lastTimeNs: 3601983630n, masked: false, refused: 7, lastStatus: 0x80000003n },
    ]);
  });

  test.each(['', 'v 4 28 3', 'w 4 28 3 1 2493427717 0 0 0x0', 'v 4 28 3 1 2493427717 0 0 0x0 more'])('%j is no count', (line) => {
    expect(() => parseCounts([line])).toThrow(ProtocolError);
  });
});

describe('parsePending', () => {
  test('the first word holds vector 0 in bit 0, the next begins at vector 64', () => {
    expect(parsePending('0x280')).toBe(0x280n);
    expect(parsePending('0x0 0x1')).toBe(1n << 64n);
  });

  test('any set of vectors comes back from the words that hold it', () => {
    fc.assert(fc.property(fc.uniqueArray(fc.integer({ min: 0, max: 2047 })), (vectors) => {
      const words = Array.from({ length: 32 }, (_, i) =>
        vectors.filter((vector) => vector >> 6 === i).reduce((bits, vector) => bits | 1n << BigInt(vector & 63), 0n));
      const bits = parsePending(words.map((word) => `0x${word.toString(16)}`).join(' '));
      expect(bits).toBe(vectors.reduce((all, vector) => all | 1n << BigInt(vector), 0n));
    }));
  });
});

describe('parseEvents', () => {
  test("the module's log, with and without detail", () => {
    expect(parseEvents('8 4860986059 remove 0000:01:00.0 1234:11e8 absent\n9 4876679826 removed 0000:01:00.0 1234:11e8\n')).toEqual([
      { sequence: 8, timeNs: 4860986059n, kind: 'remove', bdf: BDF, vendorId: 0x1234, deviceId: 0x11e8, detail: 'absent' },
      { sequence: 9, timeNs: 4876679826n, kind: 'removed', bdf: BDF, vendorId: 0x1234, deviceId: 0x11e8, detail: '' },
    ]);
  });

  test('an empty log has no events, another text is refused', () => {
    expect(parseEvents('')).toEqual([]);
    expect(() => parseEvents('8 x\n')).toThrow(ProtocolError);
  });
});

describe('what is sent', () => {
  test.each(['0000:01:00.0', '0000:00:1f.7', '10000:e1:00.0'])('%s is a PCI function', (bdf) => {
    expect(checkBdf(bdf)).toBe(bdf);
  });

  test.each(['', '01:00.0', '0000:01:00.8', '0000:01:20.0', '0000:01:00.0/..', "0000:01:00.0'; reboot; '", '0000:01:00.0\n'])('%j is none', (bdf) => {
    expect(() => checkBdf(bdf)).toThrow(UsageError);
  });

  test.each([-1, 1.5, NaN, Infinity, 2 ** 53, -1n])('%p is refused as a number', (value) => {
    expect(() => formatNumber(value, 'offset')).toThrow(/offset is/);
  });

  test('64-bit values are sent whole', () => {
    expect(formatNumber(0xffff_ffff_ffff_ffffn, 'value')).toBe('0xffffffffffffffff');
    expect(formatNumber(0, 'value')).toBe('0x0');
  });

  test.each(['one line', 'some lines', 'many lines'] as const)('without a ctl file the shell line for %s answers ENODEV and succeeds', (answer) => {
    const stdout = execFileSync('sh', ['-c', askScript('ffff:ff:1f.7', 'info', answer)], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    expect(errnoNameOf(thrownBy(() => parseAnswer('ffff:ff:1f.7', 'info', stdout)))).toBe('ENODEV');
  });
});
