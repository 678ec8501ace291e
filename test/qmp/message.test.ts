import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError } from '../../src/errors.ts';
import { LineSplitter } from '../../src/qmp/line-splitter.ts';
import { parseMessage } from '../../src/qmp/message.ts';

describe('parseMessage', () => {
  test('any text either is a message or is a ProtocolError that carries it', () => {
    const jsonish = fc.oneof(
      fc.string(),
      fc.json(),
      fc.record({ QMP: fc.jsonValue(), event: fc.jsonValue(), error: fc.jsonValue(), timestamp: fc.jsonValue() }, { requiredKeys: [] }).map((value) => JSON.stringify(value)),
    );
    fc.assert(
      fc.property(jsonish, (text) => {
        try {
          expect(['greeting', 'event', 'return', 'error']).toContain(parseMessage(text).kind);
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError);
          expect((error as ProtocolError).received).toBe(text);
        }
      }),
    );
  });

  test('a long line is cut in the message and whole in `received`', () => {
    const line = 'x'.repeat(5000);
    try {
      parseMessage(line);
      throw new Error('unreachable');
    } catch (error) {
      expect(error).toBeInstanceOf(ProtocolError);
      expect((error as Error).message.length).toBeLessThan(400);
      expect((error as ProtocolError).received).toBe(line);
    }
  });
});

describe('LineSplitter', () => {
  test('text cut anywhere comes out as the same lines', () => {
    const line = fc.string({ unit: 'grapheme', minLength: 1 }).map((text) => text.replaceAll(/\s/gu, '_'));
    fc.assert(
      fc.property(fc.array(line), fc.infiniteStream(fc.integer({ min: 1, max: 9 })), (lines, cuts) => {
        const bytes = Buffer.from(lines.map((text) => `${text}\r\n`).join(''));
        const splitter = new LineSplitter();
        const seen: string[] = [];
        for (let at = 0; at < bytes.length; ) {
          const step = cuts.next().value as number;
          seen.push(...splitter.push(bytes.subarray(at, at + step)));
          at += step;
        }
        expect(seen).toEqual(lines);
        expect(splitter.rest).toBe('');
      }),
    );
  });

  test('a line longer than the bound is a ProtocolError', () => {
    const splitter = new LineSplitter(10);
    splitter.push(Buffer.from('12345678'));
    expect(() => splitter.push(Buffer.from('9abc'))).toThrow(ProtocolError);
  });
});
