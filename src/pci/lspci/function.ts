// What a rendering is made of: a function's address and config space, and what its kernel says of it.
import { ConfigImage } from '../config-image.ts';

export interface PciAddress {
  readonly domain: number;
  readonly bus: number;
  readonly device: number;
  readonly function: number;
}

/** A line of sysfs `resource`: Linux's IORESOURCE_* flags; start and end 0 when unset. */
export interface KernelResource {
  readonly start: bigint;
  readonly end: bigint;
  readonly flags: bigint;
}

/** What Linux says of a function, from its sysfs directory. */
export interface KernelView {
  /** 0 to 5 the BARs, 6 the ROM, and a bridge's windows where the kernel shows them. */
  readonly resources: readonly KernelResource[];
  readonly irq: number;
  readonly driver?: string | undefined;
  /** Modules whose aliases fit, by name. */
  readonly modules?: readonly string[];
  readonly physicalSlot?: string | undefined;
  readonly numaNode?: number | undefined;
  readonly iommuGroup?: string | undefined;
  /** The firmware's name for it (`label`, or `acpi_index`'s). */
  readonly label?: string | undefined;
}

export interface LspciFunction {
  readonly address: PciAddress;
  readonly config: ConfigImage;
  /** Left out: config space is all there is, as with a dump or without an operating system. */
  readonly kernel?: KernelView | undefined;
}

/** In lspci's order: domain, bus, device, function. */
export function compareAddresses(a: PciAddress, b: PciAddress): number {
  return a.domain - b.domain || a.bus - b.bus || a.device - b.device || a.function - b.function;
}

/** `0000:00:1f.2`, or 00:1f.2. Throws nothing: undefined when it is no address. */
export function parseAddress(text: string): PciAddress | undefined {
  const match = /^(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])$/i.exec(text);
  if (match === null) return undefined;
  const [domain = 0, bus = 0, device = 0, fn = 0] = match.slice(1).map((word) => Number.parseInt(word ?? '0', 16));
  return device > 0x1f ? undefined : { domain, bus, device, function: fn };
}

/** The identity and class of a function, as its config space has them. */
export interface Identity {
  readonly vendorId: number;
  readonly deviceId: number;
  /** Base class and subclass. */
  readonly classId: number;
  readonly programmingInterface: number;
  readonly revision: number;
  /** Bits 6:0 of the header type. */
  readonly headerType: number;
}

export function identityOf({ config }: LspciFunction): Identity {
  return {
    vendorId: config.u16(0x00), deviceId: config.u16(0x02), classId: config.u16(0x0a), programmingInterface: config.u8(0x09),
    revision: config.u8(0x08), headerType: config.u8(0x0e) & 0x7f,
  };
}
