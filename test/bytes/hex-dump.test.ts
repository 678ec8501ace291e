import { expect, test } from '@jest/globals';
import { hexDump } from '../../src/bytes/hex-dump.ts';

test('seventeen bytes take two lines, in the columns of hexdump -C', () => {
  // Golden: `printf 'virtio rings \x00\xff~!' | hexdump -C` (util-linux), less its last line.
  expect(hexDump(Buffer.from('virtio rings \x00\xff~!', 'latin1'))).toBe([
    '00000000  76 69 72 74 69 6f 20 72  69 6e 67 73 20 00 ff 7e  |virtio rings ..~|',
    '00000010  21                                                |!|',
  ].join('\n'));
});

test('a dump over the limit is cut, with the rest counted, and addresses start where told', () => {
  expect(hexDump(new Uint8Array(40), { limitBytes: 16, baseAddress: 0x1000 })).toBe(
    `00001000  ${'00 '.repeat(8)} ${'00 '.repeat(8)} |${'.'.repeat(16)}|\n... 24 more bytes`);
});

test('nothing dumps to nothing', () => {
  expect(hexDump(new Uint8Array(0))).toBe('');
});
