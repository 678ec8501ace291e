// The line that starts gdb: quoting for two, and which sections have a place in it.
import { expect, test } from '@jest/globals';
import { gdbCommand } from '../../src/machine/gdb-stub.ts';

const addresses = new Map([
  ['.text', 0xffffffffc0200000n], ['.data', 0xffffffffc0300000n], ['.bss', 0xffffffffc0300100n], ['.text.unlikely', 0xffffffffc0200400n],
  ['.data..read_mostly', 0xffffffffc0300200n], ['.rodata.str1.8', 0xffffffffc0250000n], ['.init.text', 0xffffffffc0210000n],
  ['.data..percpu', 0x1000n], ['__mcount_loc', 1n], ['.note.Linux', 2n], ['.altinstructions', 3n],
]);

test('a module has its sections that stay, .text first; what is freed or no symbol is in is left out', () => {
  expect(gdbCommand('/k/vmlinux', '/tmp/m/gdb', [{ name: 'desk', file: '/c/desk.ko', addresses }])).toBe(
    'gdb /k/vmlinux -ex \'set confirm off\' -ex \'target remote /tmp/m/gdb\' -ex \'add-symbol-file /c/desk.ko 0xffffffffc0200000 '
    + '-s .data 0xffffffffc0300000 -s .bss 0xffffffffc0300100 -s .text.unlikely 0xffffffffc0200400 -s .data..read_mostly 0xffffffffc0300200 '
    + '-s .rodata.str1.8 0xffffffffc0250000\' -ex \'directory /c\'',
  );
});

test('a module without .text has its other sections, and a path with spaces and quotes is one word for gdb and for the shell', () => {
  expect(gdbCommand(undefined, '/tmp/m/gdb', [{ name: 'x', file: '/it\'s "mine"/x.ko', addresses: new Map([['.bss', 16n]]) }])).toBe(
    'gdb -ex \'set confirm off\' -ex \'target remote /tmp/m/gdb\' -ex \'add-symbol-file "/it\'\\\'\'s \\"mine\\"/x.ko" -s .bss 0x10\' -ex \'directory "/it\'\\\'\'s \\"mine\\""\'',
  );
});
