import { expect, test } from '@jest/globals';
import { reproScript } from '../../src/qemu/repro-script.ts';

const command = [
  '/q/qemu', '-name', 'a b', '-object', 'memory-backend-file,id=ram,size=256M,mem-path=/proc/self/fd/5,share=on', '-chardev', 'socket,id=qmp,fd=3', '-chardev', 'socket,id=console,fd=4',
  '-netdev', 'user,id=rootport-net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22',
];
const boot = { kernel: '/k/vmlinux', initramfs: '/i/initramfs.cpio', append: ['console=ttyS0', 'rdinit=/init'] };

test('a script has nothing of the test\'s descriptors, and what a machine out of a snapshot needs to boot', () => {
  const text = reproScript({ command: [...command, '-incoming', 'defer'], env: { A: 'b c' }, boot, lacks: ['the state\nof it'] });
  expect(text).not.toMatch(/fd=\d|\/proc\/self|-incoming/);
  expect(text).toContain('# Not here: the state of it');
  expect(text).toContain('export A=\'b c\'');
  expect(text).toContain('-name \'a b\' -object memory-backend-memfd,id=ram,size=256M,share=on');
  expect(text).toContain('hostfwd=tcp:127.0.0.1:$port-:22');
  expect(text).toContain('-append "console=ttyS0 rdinit=/init rootport_nonce=repro rootport_key=$key"');
});

test('a script of a machine that was booted keeps its kernel\'s words, but for this boot\'s own, and none is run by the shell', () => {
  const text = reproScript({ command: [...command, '-kernel', '/k', '-initrd', '/i', '-append', 'console=ttyS0 quiet a=$(reboot) rootport_nonce=1 rootport_key=2'], env: {}, boot, lacks: [] });
  expect(text).toContain('-append "console=ttyS0 a=\\$(reboot) rootport_nonce=repro rootport_key=$key"');
});
