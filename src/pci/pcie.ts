// The PCI Express capability: what kind of function, its link, and for a port its slot.
// Source: PCIe Base 5.0, 7.5.3. Not here: AER and other extended capabilities, changing the link.
import { CAPABILITY_ID, checkExtent, findCapability, readCapabilities } from './capabilities.ts';
import type { ConfigReader } from './config-space.ts';

/** Device/Port Type (7.5.3.2). */
export const PCIE_DEVICE_TYPES = {
  0: 'endpoint',
  1: 'legacy-endpoint',
  4: 'root-port',
  5: 'upstream-port',
  6: 'downstream-port',
  7: 'pcie-to-pci-bridge',
  8: 'pci-to-pcie-bridge',
  9: 'root-complex-integrated-endpoint',
  10: 'root-complex-event-collector',
} as const;

export type PcieDeviceType = (typeof PCIE_DEVICE_TYPES)[keyof typeof PCIE_DEVICE_TYPES];

/** Register offsets from the capability. */
export const PCIE_REGISTER = {
  CAPABILITIES: 0x02,
  DEVICE_CAPABILITIES: 0x04,
  DEVICE_CONTROL: 0x08,
  DEVICE_STATUS: 0x0a,
  LINK_CAPABILITIES: 0x0c,
  LINK_CONTROL: 0x10,
  LINK_STATUS: 0x12,
  SLOT_CAPABILITIES: 0x14,
  SLOT_CONTROL: 0x18,
  SLOT_STATUS: 0x1a,
} as const;

/** Bits of Slot Control (7.5.3.10). The indicator fields are two bits: 1 on, 2 blink, 3 off. */
export const SLOT_CONTROL = {
  ATTENTION_BUTTON_ENABLE: 0x0001,
  PRESENCE_DETECT_ENABLE: 0x0008,
  COMMAND_COMPLETED_ENABLE: 0x0010,
  HOT_PLUG_INTERRUPT_ENABLE: 0x0020,
  ATTENTION_INDICATOR: 0x00c0,
  POWER_INDICATOR: 0x0300,
  POWER_OFF: 0x0400,
  LINK_STATE_ENABLE: 0x1000,
} as const;

/** Bits of Slot Status (7.5.3.11). All but the STATE ones are cleared by writing one. */
export const SLOT_STATUS = {
  ATTENTION_BUTTON_PRESSED: 0x0001,
  POWER_FAULT: 0x0002,
  PRESENCE_DETECT_CHANGED: 0x0008,
  COMMAND_COMPLETED: 0x0010,
  PRESENCE_DETECT_STATE: 0x0040,
  LINK_STATE_CHANGED: 0x0100,
} as const;

export interface PcieSlot {
  readonly attentionButton: boolean;
  readonly powerController: boolean;
  readonly attentionIndicator: boolean;
  readonly powerIndicator: boolean;
  readonly surprise: boolean;
  readonly hotPlug: boolean;
  /** Physical Slot Number: QEMU's `slot=` of the port. */
  readonly number: number;
  /** SLOT_CONTROL bits. */
  readonly control: number;
  /** SLOT_STATUS bits. */
  readonly status: number;
  /** A card is in the slot. */
  readonly present: boolean;
}

export interface PcieCapability {
  /** Of the capability, in config space. */
  readonly offset: number;
  readonly version: number;
  /** Undefined for a type that the specification reserves. */
  readonly deviceType: PcieDeviceType | undefined;
  readonly maxPayloadSupportedBytes: number;
  readonly maxPayloadBytes: number;
  readonly functionLevelReset: boolean;
  /** Negotiated: 1 is 2.5 GT/s, 2 is 5 GT/s, ... 0 when the link is down or there is none. */
  readonly linkSpeed: number;
  readonly linkWidth: number;
  readonly linkActive: boolean;
  /** Undefined when the function has no slot. */
  readonly slot: PcieSlot | undefined;
}

/** The function's PCI Express capability, or undefined for conventional PCI. */
export async function readPcieCapability(reader: ConfigReader): Promise<PcieCapability | undefined> {
  const found = findCapability(await readCapabilities(reader), CAPABILITY_ID.PCI_EXPRESS);
  if (found === undefined) return undefined;
  // Version 1 endpoints may end after the link registers; ports with a slot go on.
  checkExtent(found, 0x14);
  const { offset } = found;
  const flags = await reader.configRead(offset + PCIE_REGISTER.CAPABILITIES, 2);
  const device = await reader.configRead(offset + PCIE_REGISTER.DEVICE_CAPABILITIES, 4);
  const deviceControl = await reader.configRead(offset + PCIE_REGISTER.DEVICE_CONTROL, 2);
  const link = await reader.configRead(offset + PCIE_REGISTER.LINK_STATUS, 2);
  const hasSlot = (flags & 0x100) !== 0;
  if (hasSlot) checkExtent(found, 0x1c);
  const type = (flags >> 4) & 0xf;
  return {
    offset,
    version: flags & 0xf,
    deviceType: (PCIE_DEVICE_TYPES as Readonly<Record<number, PcieDeviceType>>)[type],
    maxPayloadSupportedBytes: 128 << (device & 7),
    maxPayloadBytes: 128 << ((deviceControl >> 5) & 7),
    functionLevelReset: (device & 0x10000000) !== 0,
    linkSpeed: link & 0xf,
    linkWidth: (link >> 4) & 0x3f,
    linkActive: (link & 0x2000) !== 0,
    slot: hasSlot ? await readSlot(reader, offset) : undefined,
  };
}

async function readSlot(reader: ConfigReader, offset: number): Promise<PcieSlot> {
  const capabilities = await reader.configRead(offset + PCIE_REGISTER.SLOT_CAPABILITIES, 4);
  const status = await reader.configRead(offset + PCIE_REGISTER.SLOT_STATUS, 2);
  const has = (bit: number): boolean => (capabilities & (1 << bit)) !== 0;
  return {
    attentionButton: has(0),
    powerController: has(1),
    attentionIndicator: has(3),
    powerIndicator: has(4),
    surprise: has(5),
    hotPlug: has(6),
    number: capabilities >>> 19,
    control: await reader.configRead(offset + PCIE_REGISTER.SLOT_CONTROL, 2),
    status,
    present: (status & SLOT_STATUS.PRESENCE_DETECT_STATE) !== 0,
  };
}
