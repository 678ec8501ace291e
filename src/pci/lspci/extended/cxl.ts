// Compute Express Link's designated vendor-specific capabilities. Source: CXL 3.1, 8.1.3 to 8.1.10.
import { type BitNames, field } from '../../bit-names.ts';
import type { ConfigImage } from '../../config-image.ts';
import type { CapabilityContext } from '../context.ts';
import { hex, marks, named, sign } from '../text.ts';

export interface DvsecPlace {
  /** Of the capability, in config space. */
  readonly offset: number;
  readonly id: number;
  readonly revision: number;
  readonly lengthBytes: number;
}

type DvsecText = (config: ConfigImage, place: DvsecPlace) => string;

/** The name of each, its registers, and the bytes that it has to have; what follows is not decoded. */
const KINDS: Readonly<Record<number, readonly [name: string, registers: DvsecText]>> = {
  0x0: ['PCIe DVSEC for CXL Devices', deviceLines], 0x2: ['Non-CXL Function Map DVSEC', functionMapLines], 0x3: ['CXL Extensions DVSEC for Ports', portLines],
  0x4: ['GPF DVSEC for CXL Ports', portFlushLines], 0x5: ['GPF DVSEC for CXL Devices', deviceFlushLines], 0x7: ['PCIe DVSEC for Flex Bus Port', flexBusLines],
  0x8: ['Register Locator DVSEC', locatorLines], 0x9: ['MLD DVSEC', logicalDeviceLines],
};

export function cxlLines({ config, verbosity }: CapabilityContext, place: DvsecPlace): string {
  if (verbosity < 2) return '';
  if (!config.has(place.offset, place.lengthBytes)) return '';
  const kind = KINDS[place.id];
  return kind === undefined ? `\t\tUnknown ID ${hex(place.id, 4)}\n` : `\t\t${kind[0]}\n${kind[1](config, place)}`;
}

/** Here lspci 3.13 has the numbers of bits (from 1) for masks, so that its `InitRst+` is bit 0 or bit 1. */
type MaskNames = Readonly<Record<string, number>>;
const CONTROL2: MaskNames = { 'DisableCaching': 1, 'InitCacheWB&Inval': 2, 'InitRst': 3, 'RstMemClrEn': 4 };
const CAPABILITY3: MaskNames = { ColdReset: 1, WarmReset: 2, HotReset: 3, HotResetConfigurability: 4 };

function maskMarks(value: number, masks: MaskNames): string {
  return Object.entries(masks).map(([name, mask]) => `${name}${sign((value & mask) !== 0)}`).join(' ');
}

const PROTOCOLS: BitNames = { Cache: 0, IO: 1, Mem: 2 };
const RANGE_TYPES = ['Volatile', 'Non-volatile', 'CDAT'];
const RANGE_CLASSES = ['DRAM', 'Storage'];
const INTERLEAVE_BYTES = [0, 256, 4096, 512, 1024, 2048, 8192, 16384];
const TIMEOUT_SECONDS = [1, 4, 16, 64, 256];

function rangeLines(config: ConfigImage, index: number, at: number): string {
  const low = config.u32(at + 4);
  const size = (BigInt(config.u32(at)) << 32n) | BigInt((low & 0xf0000000) >>> 0);
  const base = (BigInt(config.u32(at + 8)) << 32n) | BigInt(config.u32(at + 12));
  return `\t\tRange${index}: ${hex(base, 16)}-${hex(BigInt.asUintN(64, base + size - 1n), 16)} [size=0x${hex(size, 1)}]\n`
    + `\t\t\t${marks(low, { Valid: 0, Active: 1 })} Type=${named(RANGE_TYPES, field(low, 2, 3))} Class=${named(RANGE_CLASSES, field(low, 5, 3))}`
    + ` interleave=${INTERLEAVE_BYTES[field(low, 8, 3)] ?? 0} timeout=${TIMEOUT_SECONDS[field(low, 13, 3)] ?? 0}s\n`;
}

function cacheSize(capability: number): string {
  const [unit, size] = [capability & 0xf, field(capability, 8, 8)];
  if (unit === 0) return 'Cache Size Not Reported';
  const unitBytes = { 1: 0x10000, 2: 0x100000 }[unit];
  return unitBytes === undefined ? `Cache Size: ${size} of unknown unit size (${unit})` : `Cache Size: ${hex(size * unitBytes, 8)}`;
}

function deviceLines(config: ConfigImage, { offset, revision, lengthBytes }: DvsecPlace): string {
  // CXL 1.1's, without a second range, is not decoded.
  if (revision < 1 || lengthBytes < 0x38) return '';
  const at = (register: number): number => config.u16(offset + register);
  const [capability, control, status, control2, status2] = [at(0x0a), at(0x0c), at(0x0e), at(0x10), at(0x12)];
  let text = `\t\tCXLCap:\t${marks(capability, { ...PROTOCOLS, MemHWInit: 3 })} HDMCount ${field(capability, 4, 2)} ${marks(capability, { Viral: 14 })}\n`
    + `\t\tCXLCtl:\t${marks(control, PROTOCOLS)} CacheSFCov ${field(control, 3, 5)} CacheSFGran ${field(control, 8, 3)} ${marks(control, { CacheClean: 11, Viral: 14 })}\n`
    + `\t\tCXLSta:\t${marks(status, { Viral: 14 })}\n`
    + `\t\tCXLCtl2:\t${maskMarks(control2, CONTROL2)}${revision >= 2 ? ` ${maskMarks(control2, { DesiredVolatileHDMStateAfterHotReset: 5 })}` : ''}\n`
    + `\t\tCXLSta2:\t${marks(status2, { ResetComplete: 1, ResetError: 2, PMComplete: 15 })}\n`
    + `\t\tCXLCap2:\t${cacheSize(at(0x16))}\n${rangeLines(config, 1, offset + 0x18)}${rangeLines(config, 2, offset + 0x28)}`;
  if (revision >= 2 && lengthBytes >= 0x3c) {
    text += `\t\tCXLCap3:\tDefaultVolatile HDM State After:\t${maskMarks(at(0x38), CAPABILITY3)}\n`;
  }
  return lengthBytes > 0x3c ? `${text}\t\t<?>\n` : text;
}

/** Of each map's 32 bits lspci shows the lower half. */
function functionMapLines(config: ConfigImage, { offset }: DvsecPlace): string {
  return Array.from({ length: 8 }, (_, index) => `\t\tFuncMap ${index}: ${hex(config.u16(offset + 0x0c + 4 * index), 8)}\n`).join('');
}

function portLines(config: ConfigImage, { offset, lengthBytes }: DvsecPlace): string {
  if (lengthBytes < 0x28) return '';
  const control = config.u16(offset + 0x0c);
  return `\t\tCXLPortSta:\t${maskMarks(config.u16(offset + 0x0a), { PMComplete: 0xa })}\n`
    + `\t\tCXLPortCtl:\t${marks(control, { UnmaskSBR: 0, UnmaskLinkDisable: 1, AltMem: 2, AltBME: 3, ViralEnable: 14 })}\n`
    + `\t\tAlternateBus:\t${hex(config.u8(offset + 0x0e), 2)}-${hex(config.u8(offset + 0x0f), 2)}\n`
    + `\t\tAlternateBus:\t${hex(config.u16(offset + 0x10), 4)}-${hex(config.u16(offset + 0x12), 4)}\n`;
}

/** Ten seconds, the last, lspci shows without their unit. */
const TIME_SCALES = ['1us', '10us', '100us', '1ms', '10ms', '100ms', '1s', '10<?>'];

/** Base in bits 3:0, scale in bits 11:8; an encoding that is reserved has a line of its own before. */
function flushTime(label: string, value: number): string {
  const [base, scale] = [value & 0xf, field(value, 8, 4)];
  const [, factor = '', unit = ''] = /^(\d+)(\D+)$/.exec(TIME_SCALES[scale] ?? '') ?? [];
  if (unit === '') return `\t\tReserved time scale encoding ${hex(scale, 1)}\n\t\t${label}: ${base}<?>\n`;
  return `\t\t${label}: ${base * Number(factor)}${unit}\n`;
}

function portFlushLines(config: ConfigImage, { offset }: DvsecPlace): string {
  return flushTime('GPF Phase 1 Timeout', config.u16(offset + 0x0c)) + flushTime('GPF Phase 2 Timeout', config.u16(offset + 0x0e));
}

function deviceFlushLines(config: ConfigImage, { offset }: DvsecPlace): string {
  return `${flushTime('GPF Phase 2 Duration', config.u16(offset + 0x0a))}\t\tGPF Phase 2 Power: ${config.u32(offset + 0x0c)}mW\n`;
}

/** Of revisions 0, 1, 2. */
const FLEX_BUS_LENGTHS = [0x10, 0x14, 0x20];
const FLEX_BUS_DECODED = 0x20;
const FLEX_BUS_CAPABILITY: BitNames = { '68BFlit': 5, 'MltLogDev': 6 };
const FLEX_BUS_STATUS: BitNames = { ...PROTOCOLS, SynHdrByp: 3, DrftBuf: 4, ...FLEX_BUS_CAPABILITY };
const FLIT_256: BitNames = { '256BFlit': 13, 'PBRFlit': 14 };

function flexBusLines(config: ConfigImage, { offset, revision, lengthBytes }: DvsecPlace): string {
  let text = '';
  const expected = FLEX_BUS_LENGTHS[Math.min(revision, 2)] ?? 0;
  if (revision <= 2 && lengthBytes !== expected) text += `\t\t<Wrong length for Revision ${revision}>\n`;
  const flits = (value: number): string => (revision >= 2 ? ` ${marks(value, FLIT_256)}` : '');
  const [capability, control, status] = [0x0a, 0x0c, 0x0e].map((at) => config.u16(offset + at)) as [number, number, number];
  text += `\t\tFBCap:\t${marks(capability, { ...PROTOCOLS, ...FLEX_BUS_CAPABILITY })}${flits(capability)}\n`
    + `\t\tFBCtl:\t${marks(control, { ...FLEX_BUS_STATUS, RCD: 7, Retimer1: 8, Retimer2: 9 })}${flits(control)}\n`
    + `\t\tFBSta:\t${marks(status, FLEX_BUS_STATUS)}${flits(status)}\n`;
  if (revision >= 1) text += `\t\tFBModTS:\tReceived FB Data: ${hex(config.u32(offset + 0x10) & 0xffffff, 6)}\n`;
  if (revision >= 2) {
    text += `\t\tFBCap2:\t${marks(config.u32(offset + 0x14), { NOPHint: 0 })}\n\t\tFBCtl2:\t${marks(config.u32(offset + 0x18), { NOPHint: 0 })}\n`
      + `\t\tFBSta2:\tNOPHintInfo: ${hex(config.u32(offset + 0x1c) & 3, 1)}\n`;
  }
  return lengthBytes > FLEX_BUS_DECODED ? `${text}\t\t<?>\n` : text;
}

const BLOCK_IDS: Readonly<Record<number, string>> = { 1: 'component registers', 2: 'BAR virtualization', 3: 'CXL device registers', 4: 'CPMU registers', 0xff: 'vendor-specific' };

function locatorLines(config: ConfigImage, { offset, lengthBytes }: DvsecPlace): string {
  let text = '';
  for (let at = 0x0c, index = 1; at + 8 <= lengthBytes; at += 8, index += 1) {
    const low = config.u32(offset + at);
    const id = field(low, 8, 8);
    if (id === 0) continue;
    const address = (BigInt(config.u32(offset + at + 4)) << 32n) | BigInt((low & 0xffff0000) >>> 0);
    text += `\t\tBlock${index}: BIR: bar${low & 7}, ID: ${BLOCK_IDS[id] ?? '<?>'}, offset: ${hex(address, 16)}\n`;
  }
  return text;
}

const LOGICAL_DEVICES_MAX = 16;

function logicalDeviceLines(config: ConfigImage, { offset }: DvsecPlace): string {
  const count = config.u16(offset + 0x0a);
  return count < 1 || count > LOGICAL_DEVICES_MAX ? '' : `\t\tNumLogDevs: ${count}\n`;
}
