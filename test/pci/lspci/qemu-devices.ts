// Config spaces of QEMU's PCI devices without an operating system: a paused q35 with one device at 05.0, read through
// HMP `xp` of the ECAM window, which HMP `o` opens first (q35's PCIEXBAR, 00:00.0 at 0x60).
import { execa } from 'execa';
import { ProtocolError } from '../../../src/errors.ts';
import { QmpClient } from '../../../src/qmp/client.ts';
import { duplexPair } from './duplex.ts';
import type { Qemu } from '../../../src/qemu/find.ts';

const ECAM = 0xb0000000;
const SLOT = 5;

/** What stands in for back ends: everything inside of QEMU. */
const AUDIO = [{ audiodev: 'a' }, '-audiodev', 'none,id=a'] as const;
const CAN = [{ canbus0: 'c', canbus1: 'c' }, '-object', 'can-bus,id=c'] as const;
const BMC = [{ bmc: 'b' }, '-device', 'ipmi-bmc-sim,id=b'] as const;
const DRIVE = [{ drive: 'd' }, '-blockdev', 'null-co,node-name=d'] as const;
const DIMM = [{ memdev: 'm' }, '-m', '256M,maxmem=1G', '-object', 'memory-backend-ram,id=m,size=128M'] as const;
const NEEDS: Readonly<Record<string, readonly [Record<string, unknown>, ...string[]]>> = {
  'AC97': AUDIO, 'ES1370': AUDIO, 'virtio-sound-pci': AUDIO, 'ctucan_pci': CAN, 'mioe3680_pci': CAN, 'pcm3680_pci': CAN,
  'kvaser_pci': [{ canbus: 'c' }, '-object', 'can-bus,id=c'],
  'pci-ipmi-bt': BMC, 'pci-ipmi-kcs': BMC, 'virtio-blk-pci': DRIVE, 'virtio-blk-pci-transitional': DRIVE, 'virtio-blk-pci-non-transitional': DRIVE,
  'virtio-mem-pci': DIMM, 'virtio-pmem-pci': DIMM, 'acpi-erst': [{ memdev: 'm' }, '-object', 'memory-backend-ram,id=m,size=64k'],
  'ivshmem-plain': [{ memdev: 'm' }, '-object', 'memory-backend-ram,id=m,size=1M,share=on'], 'nvme': [{ serial: 's' }],
  'pci-bridge': [{ chassis_nr: 1 }], 'pci-bridge-seat': [{ chassis_nr: 1 }], 'virtio-crypto-pci': [{ cryptodev: 'k' }, '-object', 'cryptodev-backend-builtin,id=k'],
};

async function withQemu<T>(qemu: Qemu, args: readonly string[], use: (qmp: QmpClient) => Promise<T>): Promise<T | undefined> {
  const [program = '', ...own] = qemu.command;
  const child = execa(program, [...own, '-accel', 'tcg', '-S', '-nodefaults', '-display', 'none', '-qmp', 'stdio', '-machine', 'q35,cxl=on', ...args], {
    env: qemu.env, buffer: false, reject: false, stdio: 'pipe',
  });
  child.stdin.on('error', () => {});
  try {
    const qmp = await QmpClient.connect(duplexPair(child.stdout, child.stdin), { timeoutMs: 20_000, endReason: () => new ProtocolError('QEMU refused the device') });
    try {
      return await use(qmp);
    } finally {
      qmp.close();
    }
  } catch (error) {
    // A device that QEMU does not take ends it before the greeting.
    if (error instanceof ProtocolError && error.message.includes('refused the device')) return undefined;
    throw error;
  } finally {
    child.kill('SIGKILL');
    await child;
  }
}

/** The types of PCI devices that this QEMU has, by name. */
export async function pciDeviceTypes(qemu: Qemu): Promise<string[]> {
  const types = await withQemu(qemu, [], (qmp) => qmp.execute<{ name: string }[]>('qom-list-types', { implements: 'pci-device', abstract: false }));
  return (types ?? []).map(({ name }) => name).sort();
}

/** The 4096 bytes of a device of this type, or undefined when it cannot be made here. */
export async function configOfType(qemu: Qemu, driver: string): Promise<Uint8Array | undefined> {
  const [properties = {}, ...args] = NEEDS[driver] ?? [];
  const device = (more: object): string[] => [...args, '-device', JSON.stringify({ driver, bus: 'pcie.0', addr: String(SLOT), ...properties, ...more })];
  // Firmware is no part of the config space, and not every device has a property for it.
  return await withQemu(qemu, device({ romfile: '' }), readSlot) ?? await withQemu(qemu, device({}), readSlot);
}

async function readSlot(qmp: QmpClient): Promise<Uint8Array | undefined> {
  for (const [port, value] of [[0xcf8, 0x80000064], [0xcfc, 0], [0xcf8, 0x80000060], [0xcfc, ECAM + 1]] as const) await qmp.hmp(`o /w ${port} ${value}`);
  const said = await qmp.hmp(`xp /1024xw ${ECAM + SLOT * 8 * 4096}`);
  const words = [...said.matchAll(/ 0x([0-9a-f]{8})/g)].map(([, word = '']) => Number.parseInt(word, 16));
  if (words.length !== 1024) throw new ProtocolError('xp did not show a config space', { received: said });
  return words[0] === 0xffffffff || words[0] === 0 ? undefined : new Uint8Array(Uint32Array.from(words).buffer);
}
