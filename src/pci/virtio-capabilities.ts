// Where a virtio device has its structures: the vendor-specific capabilities of virtio over PCI.
// Source: virtio 1.2, 4.1.4 and 4.1.2. Pure; what the structures hold is not here.
import { layout, u32, u8 } from '../bytes/layout.ts';
import { CAPABILITY_ID, readCapabilities } from './capabilities.ts';
import type { ConfigReader, PciHeader } from './config-space.ts';

/** struct virtio_pci_cap (4.1.4). */
export const VIRTIO_PCI_CAP = layout('virtio_pci_cap', 16, {
  cap_vndr: u8(0x0, '9'),
  cap_next: u8(0x1),
  cap_len: u8(0x2, 'this capability, with what follows the 16 bytes'),
  cfg_type: u8(0x3),
  bar: u8(0x4, '0 to 5'),
  id: u8(0x5, 'of a shared memory region'),
  offset: u32(0x8, 'of the structure, in the BAR'),
  length: u32(0xc, 'of the structure, bytes'),
});

/** cfg_type (4.1.4). */
export const VIRTIO_PCI_CFG_TYPE = {
  /** Common configuration. */
  COMMON_CFG: 1,
  /** Notifications. */
  NOTIFY_CFG: 2,
  /** ISR status. */
  ISR_CFG: 3,
  /** Device-specific configuration. */
  DEVICE_CFG: 4,
  /** Access to the BARs through config space. */
  PCI_CFG: 5,
  /** A shared memory region. */
  SHARED_MEMORY_CFG: 8,
  /** Vendor data. */
  VENDOR_CFG: 9,
} as const;

export interface VirtioCapability {
  /** Of the capability, in config space. */
  readonly offset: number;
  /** A VIRTIO_PCI_CFG_TYPE, or one that this table does not know. */
  readonly cfgType: number;
  readonly bar: number;
  readonly id: number;
  /** Of the structure in the BAR; 64 bits for shared memory. */
  readonly structureOffset: bigint;
  readonly lengthBytes: bigint;
  /** NOTIFY_CFG only: queue n's notification is at structureOffset + queue_notify_off * this. */
  readonly notifyOffMultiplier: number | undefined;
}

/**
 * The virtio capabilities in list order; a driver takes the first of a type that it can use. Those too
 * short to be one are left out. Ask of a virtio function only: others use the vendor's id as they like.
 */
export async function readVirtioCapabilities(reader: ConfigReader): Promise<VirtioCapability[]> {
  const found: VirtioCapability[] = [];
  for (const { id, offset } of (await readCapabilities(reader)).capabilities) {
    if (id !== CAPABILITY_ID.VENDOR_SPECIFIC || offset + VIRTIO_PCI_CAP.sizeBytes > 0x100) continue;
    const words = new DataView(new ArrayBuffer(24));
    for (let at = 0; at < 24 && offset + at < 0x100; at += 4) words.setUint32(at, await reader.configRead(offset + at, 4), true);
    const cap = VIRTIO_PCI_CAP.decode(new Uint8Array(words.buffer));
    if (cap.cap_len < VIRTIO_PCI_CAP.sizeBytes) continue;
    const is64Bit = cap.cfg_type === VIRTIO_PCI_CFG_TYPE.SHARED_MEMORY_CFG && cap.cap_len >= 24;
    const high = (at: number): bigint => (is64Bit ? BigInt(words.getUint32(at, true)) << 32n : 0n);
    found.push({
      offset,
      cfgType: cap.cfg_type,
      bar: cap.bar,
      id: cap.id,
      structureOffset: high(16) | BigInt(cap.offset),
      lengthBytes: high(20) | BigInt(cap.length),
      notifyOffMultiplier: cap.cfg_type === VIRTIO_PCI_CFG_TYPE.NOTIFY_CFG && cap.cap_len >= 20 ? words.getUint32(16, true) : undefined,
    });
  }
  return found;
}

/** The virtio device id that a PCI function stands for (4.1.2), or undefined when it is no virtio device. */
export function virtioDeviceId(header: PciHeader): number | undefined {
  if (header.vendorId !== 0x1af4 || header.type !== 0) return undefined;
  if (header.deviceId >= 0x1040 && header.deviceId <= 0x107f) return header.deviceId - 0x1040;
  if (header.deviceId >= 0x1000 && header.deviceId <= 0x103f) return header.subsystemId;
  return undefined;
}
