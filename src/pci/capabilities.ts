// The two linked lists of capabilities, walked over a hostile config space: loops and bad pointers end
// the walk and are told, never thrown. Source: PCI Local Bus 3.0, 6.7; PCIe Base 5.0, 7.6.
// Not here: what each capability holds (msix.ts, msi.ts, pcie.ts, virtio-capabilities.ts).
import { ProtocolError } from '../errors.ts';
import { CONFIG_BYTES, CONFIG_HEADER_BYTES, EXTENDED_CONFIG_BYTES, STATUS } from './config-space.ts';
import type { ConfigReader } from './config-space.ts';

/** Capability ids (PCI Code and ID Assignment 1.11, section 2). */
export const CAPABILITY_ID = {
  POWER_MANAGEMENT: 0x01,
  AGP: 0x02,
  VITAL_PRODUCT_DATA: 0x03,
  SLOT_IDENTIFICATION: 0x04,
  MSI: 0x05,
  PCI_X: 0x07,
  VENDOR_SPECIFIC: 0x09,
  HOT_PLUG: 0x0c,
  BRIDGE_SUBSYSTEM: 0x0d,
  PCI_EXPRESS: 0x10,
  MSI_X: 0x11,
  SATA: 0x12,
  ADVANCED_FEATURES: 0x13,
} as const;

/** Extended capability ids (the same document, section 3). */
export const EXTENDED_CAPABILITY_ID = {
  ADVANCED_ERROR_REPORTING: 0x0001,
  VIRTUAL_CHANNEL: 0x0002,
  DEVICE_SERIAL_NUMBER: 0x0003,
  VENDOR_SPECIFIC: 0x000b,
  ACCESS_CONTROL_SERVICES: 0x000d,
  ALTERNATIVE_ROUTING_ID: 0x000e,
  ADDRESS_TRANSLATION_SERVICES: 0x000f,
  SINGLE_ROOT_IO_VIRTUALIZATION: 0x0010,
  RESIZABLE_BAR: 0x0015,
  LATENCY_TOLERANCE_REPORTING: 0x0018,
  PROCESS_ADDRESS_SPACE_ID: 0x001b,
  DOWNSTREAM_PORT_CONTAINMENT: 0x001d,
} as const;

export interface Capability {
  readonly id: number;
  /** Where it starts in config space. */
  readonly offset: number;
  /** The pointer to the next one as it stands there; 0 ends the list. */
  readonly next: number;
  /** Of an extended capability; 0 otherwise. */
  readonly version: number;
}

export interface CapabilityList {
  /** In list order. */
  readonly capabilities: readonly Capability[];
  /** What is wrong with the list, in words; empty for a sound one. */
  readonly problems: readonly string[];
}

/** The list that starts at the header's pointer. Empty without STATUS.CAP_LIST. */
export async function readCapabilities(reader: ConfigReader): Promise<CapabilityList> {
  const status = await reader.configRead(0x06, 2);
  if ((status & STATUS.CAP_LIST) === 0) return { capabilities: [], problems: [] };
  // The two low bits of pointers are reserved, and software masks them (6.7).
  return walk(await reader.configRead(0x34, 1) & ~3, CONFIG_HEADER_BYTES, CONFIG_BYTES, async (offset) => {
    const header = await reader.configRead(offset, 2);
    if (header === 0xffff) return undefined;
    return { id: header & 0xff, offset, next: (header >> 8) & ~3, version: 0 };
  });
}

/** The list in extended config space. Empty for a function of conventional PCI, where it reads ones. */
export async function readExtendedCapabilities(reader: ConfigReader): Promise<CapabilityList> {
  const first = await reader.configRead(CONFIG_BYTES, 4);
  if (first === 0 || first === 0xffffffff) return { capabilities: [], problems: [] };
  return walk(CONFIG_BYTES, CONFIG_BYTES, EXTENDED_CONFIG_BYTES, async (offset) => {
    const header = await reader.configRead(offset, 4);
    if (header === 0xffffffff) return undefined;
    return { id: header & 0xffff, offset, next: (header >>> 20) & ~3, version: (header >>> 16) & 0xf };
  });
}

async function walk(
  first: number,
  lowest: number,
  end: number,
  read: (offset: number) => Promise<Capability | undefined>,
): Promise<CapabilityList> {
  const capabilities: Capability[] = [];
  const seen = new Set<number>();
  const broken = (problem: string): CapabilityList => ({ capabilities, problems: [problem] });
  for (let offset = first; offset !== 0; ) {
    const from = capabilities.length === 0 ? 'the first pointer' : `the pointer at ${hex(capabilities.at(-1)?.offset ?? 0)}`;
    if (offset < lowest || offset >= end) return broken(`${from} leads to ${hex(offset)}, outside of the list's space`);
    if (seen.has(offset)) return broken(`${from} leads back to ${hex(offset)}: the list is a loop`);
    seen.add(offset);
    const capability = await read(offset);
    if (capability === undefined) return broken(`${from} leads to ${hex(offset)}, which reads all ones`);
    capabilities.push(capability);
    offset = capability.next;
  }
  return { capabilities, problems: [] };
}

/** The first capability of this id. */
export function findCapability(list: CapabilityList, id: number): Capability | undefined {
  return list.capabilities.find((capability) => capability.id === id);
}

/** Throws a ProtocolError when a capability that needs `sizeBytes` runs out of its config space. */
export function checkExtent({ id, offset }: Capability, sizeBytes: number): void {
  const end = offset < CONFIG_BYTES ? CONFIG_BYTES : EXTENDED_CONFIG_BYTES;
  if (offset + sizeBytes > end) {
    throw new ProtocolError(`capability ${hex(id)} at ${hex(offset)} needs ${sizeBytes} bytes and runs out of config space`);
  }
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
