import { describe, expect, test } from '@jest/globals';
import { commandLine, placement, type CommandLineSpec } from '../../src/qemu/command-line.ts';
import { findPreset } from '../../src/qemu/preset.ts';

function spec(preset: string, changes: Partial<CommandLineSpec> = {}): CommandLineSpec {
  return {
    name: 'rootport-x1', version: { major: 7, minor: 2, text: '7.2.22' }, preset: findPreset(preset), ports: 2, accel: 'tcg', tcgThread: 'single', cpus: 1, memoryMiB: 256,
    start: { kernel: '/k/vmlinux', initramfs: '/i/initramfs.cpio', append: ['console=ttyS0', 'quiet'] }, devices: [],
    qmpFd: 3, consoleFd: 4, memoryFd: 5, network: true, extraArgs: [], ...changes,
  };
}

/** Options that may stand more than once, in order. */
const valuesOf = (args: readonly string[], option: string): string[] => args.filter((_, i) => args[i - 1] === option);

test('a q35 with two ports is this line', () => {
  expect(commandLine(spec('q35'))).toEqual([
    '-msg', 'timestamp=on', '-name', 'rootport-x1', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
    '-machine', `${findPreset('q35').machine},memory-backend=ram`, '-accel', 'tcg',
    '-cpu', 'max', '-smp', '1', '-m', '256M',
    '-object', 'memory-backend-file,id=ram,size=256M,mem-path=/proc/self/fd/5,share=on',
    '-kernel', '/k/vmlinux', '-initrd', '/i/initramfs.cpio', '-append', 'console=ttyS0 quiet',
    '-chardev', 'socket,id=qmp,fd=3', '-mon', 'chardev=qmp,mode=control',
    '-chardev', 'socket,id=console,fd=4', '-serial', 'chardev:console',
    '-device', 'vmgenid,id=rootport-vmgenid,guid=auto',
    '-netdev', 'user,id=rootport-net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22',
    '-device', 'virtio-net-pci,id=rootport-nic,netdev=rootport-net,romfile=,bus=pcie.0,addr=0x1e',
    '-device', 'pcie-root-port,id=rp1,bus=pcie.0,chassis=1,slot=1,addr=0x10.0,multifunction=on',
    '-device', 'pcie-root-port,id=rp2,bus=pcie.0,chassis=2,slot=2,addr=0x10.1',
  ]);
});

describe('by machine', () => {
  test('native hot-plug adds the global that turns ACPI\'s off, and nothing else', () => {
    const native = commandLine(spec('q35-native-hotplug'));
    const global = native.indexOf('-global');
    expect(native[global + 1]).toBe('ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off');
    expect(native.toSpliced(global, 2)).toEqual(commandLine(spec('q35')));
  });

  test('an IOMMU comes before every other device', () => {
    expect(valuesOf(commandLine(spec('q35-iommu')), '-device')[0]).toMatch(/^intel-iommu,/);
  });

  test('pc has no root ports: its network card and devices are on pci.0', () => {
    const place = placement(findPreset('pc'), 'slot2');
    const args = commandLine(spec('pc', { devices: [{ id: 'dev0', driver: 'edu', properties: {}, chardevs: [], place }] }));
    expect(valuesOf(args, '-device')).toEqual([
      'vmgenid,id=rootport-vmgenid,guid=auto', 'virtio-net-pci,id=rootport-nic,netdev=rootport-net,romfile=,bus=pci.0,addr=0x1e', 'edu,id=dev0,bus=pci.0,addr=0x9',
    ]);
  });

  test('KVM takes the host\'s CPU', () => {
    const args = commandLine(spec('q35', { accel: 'kvm', cpus: 4, memoryMiB: 1024 }));
    expect([valuesOf(args, '-cpu'), valuesOf(args, '-smp'), valuesOf(args, '-m')]).toEqual([['host'], ['4'], ['1024M']]);
    expect(valuesOf(args, '-accel')).toEqual(['kvm']);
  });

  test('several CPUs under TCG say how they run; one does not', () => {
    const accel = (changes: Partial<CommandLineSpec>): string[] => valuesOf(commandLine(spec('q35', changes)), '-accel');
    expect([accel({ cpus: 2 }), accel({ cpus: 2, tcgThread: 'multi' }), accel({ cpus: 1 })])
      .toEqual([['tcg,thread=single'], ['tcg,thread=multi'], ['tcg']]);
  });

  test('without a network there is no card and no forward', () => {
    expect(commandLine(spec('q35', { network: false })).join(' ')).not.toMatch(/netdev|hostfwd|virtio-net/);
  });
});

describe('ports', () => {
  test('sixty-four have addresses, chassis and slots of their own, each first function multifunction', () => {
    const ports = valuesOf(commandLine(spec('q35', { ports: 64 })), '-device').filter((one) => one.startsWith('pcie-root-port'));
    const addresses = ports.map((one) => /addr=(0x[0-9a-f]+\.\d)/.exec(one)?.[1]);
    expect([new Set(addresses).size, addresses[8], addresses[63]]).toEqual([64, '0x11.0', '0x17.7']);
    expect(ports.filter((one) => one.endsWith('multifunction=on'))).toHaveLength(8);
    expect(new Set(ports.map((one) => /chassis=(\d+)/.exec(one)?.[1])).size).toBe(64);
  });

  test('a device on q35 goes onto its port\'s bus', () => {
    expect(placement(findPreset('q35'), 'rp3')).toEqual({ bus: 'rp3' });
  });
});

describe('cold devices', () => {
  test('have their chardevs before them, and commas in values doubled', () => {
    const args = commandLine(spec('q35', { devices: [{
      id: 'dev0', driver: 'vhost-user-blk-pci', properties: { chardev: 'c0', serial: 'a,b', 'num-queues': 2, share: true, rom: false },
      chardevs: [{ id: 'c0', path: '/tmp/a,b/sock' }], place: { bus: 'rp1' },
    }] }));
    expect(args.slice(-4)).toEqual([
      '-chardev', 'socket,id=c0,path=/tmp/a,,b/sock',
      '-device', 'vhost-user-blk-pci,id=dev0,chardev=c0,serial=a,,b,num-queues=2,share=on,rom=off,bus=rp1',
    ]);
  });

  test('have their netdevs between their chardevs and them', () => {
    const args = commandLine(spec('q35', { devices: [{
      id: 'dev0', driver: 'virtio-net-pci', properties: { netdev: 'n0', mq: true }, place: { bus: 'rp1' },
      chardevs: [{ id: 'c0', path: '/tmp/sock' }], netdevs: [{ id: 'n0', type: 'vhost-user', properties: { queues: 2, chardev: 'c0' } }],
    }] }));
    expect(args.slice(-6)).toEqual([
      '-chardev', 'socket,id=c0,path=/tmp/sock',
      '-netdev', 'vhost-user,id=n0,queues=2,chardev=c0',
      '-device', 'virtio-net-pci,id=dev0,netdev=n0,mq=on,bus=rp1',
    ]);
  });

  test.each([[7, 2, 'reconnect=1'], [10, 0, 'reconnect-ms=100']])('of QEMU %s.%s connect again with %s where it is asked for', (major, minor, property) => {
    const chardevs = [{ id: 'c0', path: '/a', reconnect: true }, { id: 'c1', path: '/b' }];
    const args = commandLine(spec('q35', {
      version: { major, minor, text: '' }, devices: [{ id: 'dev0', driver: 'x', properties: {}, chardevs, place: { bus: 'rp1' } }],
    }));
    expect(valuesOf(args, '-chardev').slice(-2)).toEqual([`socket,id=c0,path=/a,${property}`, 'socket,id=c1,path=/b']);
  });

  test('come after the ports, and extra arguments last', () => {
    const args = commandLine(spec('q35', {
      devices: [{ id: 'dev0', driver: 'edu', properties: {}, chardevs: [], place: { bus: 'rp1' } }], extraArgs: ['-trace', 'x'],
    }));
    expect(args.slice(-2)).toEqual(['-trace', 'x']);
    expect(args.findIndex((one) => one.startsWith('edu,'))).toBeGreaterThan(args.findIndex((one) => one.includes('id=rp2')));
  });
});

test('a machine whose guest comes from elsewhere boots nothing, and is else the same', () => {
  const args = commandLine(spec('q35', { start: 'incoming' }));
  expect(valuesOf(args, '-incoming')).toEqual(['defer']);
  const booted = commandLine(spec('q35'));
  const at = booted.indexOf('-kernel');
  expect(args).toEqual(booted.toSpliced(at, 6, '-incoming', 'defer'));
});

test('it is a function of its argument alone, which it leaves as it is', () => {
  const given = Object.freeze(spec('q35', { extraArgs: Object.freeze(['a']) as readonly string[] }));
  expect(commandLine(given)).toEqual(commandLine(given));
});
