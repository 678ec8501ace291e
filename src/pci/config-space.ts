// The configuration space header, types 0 and 1, as tables, and how config space is read.
// Source: PCI Local Bus 3.0, 6.1 and 6.2; PCI-to-PCI Bridge 1.2, 3.2; PCIe Base 5.0, 7.5.1.
// Not here: what BARs mean (bar.ts), capabilities (capabilities.ts), CardBus bridges (type 2).
import { layout, u16, u32, u8 } from '../bytes/layout.ts';
import type { Decoded } from '../bytes/layout.ts';
import { ProtocolError, UsageError } from '../errors.ts';
import type { PciAccess } from './access.ts';

/** Whatever reads config space: a PciAccess, or bytes that were read before (configOf). */
export type ConfigReader = Pick<PciAccess, 'configRead'>;

export const CONFIG_HEADER_BYTES = 0x40;
/** Conventional PCI's config space; PCIe functions have 4096. */
export const CONFIG_BYTES = 0x100;
export const EXTENDED_CONFIG_BYTES = 0x1000;

/** Fields that every header type has. */
export const COMMON_HEADER = layout('PCI header', CONFIG_HEADER_BYTES, {
  vendorId: u16(0x00, '0xffff: there is no function'),
  deviceId: u16(0x02),
  command: u16(0x04, 'COMMAND bits'),
  status: u16(0x06, 'STATUS bits'),
  revisionId: u8(0x08),
  programmingInterface: u8(0x09),
  subclass: u8(0x0a),
  baseClass: u8(0x0b),
  cacheLineSize: u8(0x0c),
  latencyTimer: u8(0x0d),
  headerType: u8(0x0e, 'bits 6:0 the layout, bit 7 multi-function'),
  bist: u8(0x0f),
  capabilitiesPointer: u8(0x34, 'valid when STATUS.CAP_LIST is set'),
  interruptLine: u8(0x3c),
  interruptPin: u8(0x3d, '0 none, 1 to 4 INTA to INTD'),
});

/** Endpoints. */
export const TYPE_0_HEADER = layout('PCI type 0 header', CONFIG_HEADER_BYTES, {
  bar0: u32(0x10),
  bar1: u32(0x14),
  bar2: u32(0x18),
  bar3: u32(0x1c),
  bar4: u32(0x20),
  bar5: u32(0x24),
  cardbusCisPointer: u32(0x28),
  subsystemVendorId: u16(0x2c),
  subsystemId: u16(0x2e),
  expansionRom: u32(0x30),
  minGrant: u8(0x3e),
  maxLatency: u8(0x3f),
});

/** Bridges and PCIe ports. */
export const TYPE_1_HEADER = layout('PCI type 1 header', CONFIG_HEADER_BYTES, {
  bar0: u32(0x10),
  bar1: u32(0x14),
  primaryBus: u8(0x18),
  secondaryBus: u8(0x19),
  subordinateBus: u8(0x1a),
  secondaryLatencyTimer: u8(0x1b),
  ioBase: u8(0x1c),
  ioLimit: u8(0x1d),
  secondaryStatus: u16(0x1e),
  memoryBase: u16(0x20),
  memoryLimit: u16(0x22),
  prefetchableBase: u16(0x24),
  prefetchableLimit: u16(0x26),
  prefetchableBaseUpper: u32(0x28),
  prefetchableLimitUpper: u32(0x2c),
  ioBaseUpper: u16(0x30),
  ioLimitUpper: u16(0x32),
  expansionRom: u32(0x38),
  bridgeControl: u16(0x3e),
});

/** Bits of the command register (PCI 3.0, 6.2.2). */
export const COMMAND = {
  IO: 0x0001,
  MEMORY: 0x0002,
  BUS_MASTER: 0x0004,
  PARITY_ERROR_RESPONSE: 0x0040,
  SERR: 0x0100,
  INTX_DISABLE: 0x0400,
} as const;

/** Bits of the status register (PCI 3.0, 6.2.3). Error bits are cleared by writing one. */
export const STATUS = {
  INTX: 0x0008,
  CAP_LIST: 0x0010,
  MASTER_DATA_PARITY: 0x0100,
  SIGNALED_TARGET_ABORT: 0x0800,
  RECEIVED_TARGET_ABORT: 0x1000,
  RECEIVED_MASTER_ABORT: 0x2000,
  SIGNALED_SYSTEM_ERROR: 0x4000,
  DETECTED_PARITY: 0x8000,
} as const;

type Common = Readonly<Decoded<typeof COMMON_HEADER.fields>> & {
  readonly multiFunction: boolean;
  /** Base class, subclass and programming interface as one 24-bit number, as lspci and udev have it. */
  readonly classCode: number;
};
export type EndpointHeader = Common & { readonly type: 0 } & Readonly<Decoded<typeof TYPE_0_HEADER.fields>>;
export type BridgeHeader = Common & { readonly type: 1 } & Readonly<Decoded<typeof TYPE_1_HEADER.fields>>;
export type PciHeader = EndpointHeader | BridgeHeader;

/**
 * The header out of the first 64 bytes of config space. Throws a UsageError for fewer bytes, and a
 * ProtocolError when no function answers (all ones) or the header type is neither 0 nor 1.
 */
export function decodeHeader(bytes: Uint8Array): PciHeader {
  const common = COMMON_HEADER.decode(bytes);
  if (common.vendorId === 0xffff) throw new ProtocolError('config space reads all ones: no PCI function is there', { received: bytes });
  const { baseClass, subclass, programmingInterface, headerType } = common;
  const shared = { ...common, multiFunction: (headerType & 0x80) !== 0, classCode: (baseClass << 16) | (subclass << 8) | programmingInterface };
  const type = headerType & 0x7f;
  if (type === 0) return { ...shared, type, ...TYPE_0_HEADER.decode(bytes) };
  if (type === 1) return { ...shared, type, ...TYPE_1_HEADER.decode(bytes) };
  throw new ProtocolError(`config space has header type ${type}; 0 (endpoint) and 1 (bridge) are known`, { received: bytes });
}

export async function readHeader(reader: ConfigReader): Promise<PciHeader> {
  return decodeHeader(await readConfigSpace(reader, CONFIG_HEADER_BYTES));
}

/** Config space from 0 on, read as 32-bit words; `sizeBytes` is a multiple of four. */
export async function readConfigSpace(reader: ConfigReader, sizeBytes: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(sizeBytes);
  const view = new DataView(bytes.buffer);
  for (let offset = 0; offset < sizeBytes; offset += 4) view.setUint32(offset, await reader.configRead(offset, 4), true);
  return bytes;
}

/**
 * Config space that was read before (sysfs `config`, a dump), as a reader. Past the bytes it reads
 * ones, as absent config space does; a bad offset is a UsageError, as on a bus.
 */
export function configOf(bytes: Uint8Array): ConfigReader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    configRead: (offset, width) => {
      checkConfigAccess(offset, width);
      if (offset + width > bytes.length) return Promise.resolve(width === 4 ? 0xffffffff : 2 ** (8 * width) - 1);
      return Promise.resolve(width === 4 ? view.getUint32(offset, true) : width === 2 ? view.getUint16(offset, true) : view.getUint8(offset));
    },
  };
}

/** Throws a UsageError for an offset outside of config space or not a multiple of the width. */
export function checkConfigAccess(offset: number, width: number): void {
  if (!Number.isInteger(offset) || offset < 0 || offset + width > EXTENDED_CONFIG_BYTES || offset % width !== 0) {
    throw new UsageError(`there is no config access of ${width} bytes at offset ${offset}`);
  }
}
