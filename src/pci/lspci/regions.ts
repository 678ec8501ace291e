// BARs and the expansion ROM: `Region 4: Memory at fce00000 (64-bit, prefetchable) [size=16K]`.
// Source: PCI Local Bus 3.0, 6.2.5; Linux include/linux/ioport.h for what the kernel says of them.
import { COMMAND } from '../config-space.ts';
import { IORESOURCE } from '../bar.ts';
import type { KernelResource, LspciFunction } from './function.ts';
import { hex, sizeText } from './text.ts';

const ENHANCED_ALLOCATION = 0x80000000n;
const ROM_INDEX = 6;

interface Region {
  /** The register's low word, flags and all. */
  readonly flags: number;
  readonly address: bigint;
  readonly sizeBytes: bigint;
  readonly virtual: boolean;
  readonly enhanced: boolean;
  readonly brokenWide: boolean;
}

/** The lines of `count` BARs. `busView` (-b): what the registers say, not the kernel. */
export function regionLines(fn: LspciFunction, count: number, verbosity: number, busView: boolean): string {
  let text = '';
  for (let index = 0; index < count; index++) {
    const register = fn.config.u32(0x10 + 4 * index);
    const wide = (register & 7) === 4;
    text += regionLine(fn, index, regionOf(fn, index, count, register, wide, busView), verbosity);
    if (wide && index < count - 1) index += 1;
  }
  return text;
}

function regionOf(fn: LspciFunction, index: number, count: number, register: number, wide: boolean, busView: boolean): Region | undefined {
  const { config, kernel } = fn;
  const resource = busView ? undefined : kernel?.resources[index];
  const brokenWide = wide && index >= count - 1;
  const high = wide && !brokenWide ? BigInt(config.u32(0x14 + 4 * index)) : 0n;
  const ownAddress = (register & 1) !== 0 ? BigInt((register & ~3) >>> 0) : BigInt((register & ~15) >>> 0) | (high << 32n);
  const start = resource?.start ?? 0n;
  const sizeBytes = resource === undefined || resource.end === 0n ? 0n : resource.end - start + 1n;
  if (register === 0xffffffff) return undefined;
  if (register === 0 && sizeBytes === 0n) return undefined;
  // A register of zero that the kernel has an address for: a virtual function's, or one that is enhanced.
  const absent = register === 0 || (ownAddress === 0n && start !== 0n);
  const flags = absent ? flagsOf(resource, register) : register;
  return {
    flags, sizeBytes, brokenWide,
    address: resource !== undefined && fn.kernel !== undefined ? start : ownAddress,
    virtual: absent && start !== 0n,
    enhanced: ((resource?.flags ?? 0n) & ENHANCED_ALLOCATION) !== 0n,
  };
}

function flagsOf(resource: KernelResource | undefined, register: number): number {
  const flags = resource?.flags ?? 0n;
  if ((flags & IORESOURCE.IO) !== 0n) return 1;
  const wide = (flags & IORESOURCE.MEM_64) !== 0n ? 4 : 0;
  return register | wide | ((flags & IORESOURCE.PREFETCH) !== 0n ? 8 : 0);
}

function regionLine({ config }: LspciFunction, index: number, region: Region | undefined, verbosity: number): string {
  if (region === undefined) return '';
  const { flags, address, sizeBytes, virtual, enhanced, brokenWide } = region;
  const command = config.u16(0x04);
  const label = verbosity > 1 ? `\tRegion ${index}: ` : '\t';
  const isIo = (flags & 1) !== 0;
  const decoding = (command & (isIo ? COMMAND.IO : COMMAND.MEMORY)) !== 0;
  const off = !decoding && !virtual ? ' [disabled]' : '';
  const where = address !== 0n ? hex(address, isIo ? 4 : 8) : decodedAnyway(flags, isIo, decoding);
  const marks = `${virtual ? ' [virtual]' : ''}${off}${enhanced ? ' [enhanced]' : ''}`;
  if (isIo) return `${label}I/O ports at ${where}${marks}${sizeText(sizeBytes)}\n`;
  const type = ['32-bit', 'low-1M', '64-bit', 'type 3'][(flags >> 1) & 3] ?? '';
  const place = brokenWide ? '<broken-64-bit-slot>' : where;
  return `${label}Memory at ${place} (${type}, ${(flags & 8) === 0 ? 'non-' : ''}prefetchable)${marks}${sizeText(sizeBytes)}\n`;
}

/** Without an address: nothing was assigned, or the register holds flags only while decoding is on. */
function decodedAnyway(flags: number, isIo: boolean, decoding: boolean): string {
  void flags;
  void isIo;
  return decoding ? '<ignored>' : '<unassigned>';
}

/** The expansion ROM's line, or nothing. `register` is its offset: 0x30 of endpoints, 0x38 of bridges. */
export function romLine({ config, kernel }: LspciFunction, register: number, busView: boolean): string {
  const own = config.u32(register);
  const resource = busView ? undefined : kernel?.resources[ROM_INDEX];
  const start = resource?.start ?? 0n;
  const sizeBytes = resource === undefined || resource.end === 0n ? 0n : resource.end - start + 1n;
  const ownAddress = (own & 0xfffff800) >>> 0;
  const address = resource === undefined ? BigInt(ownAddress) : start & ~0x7ffn;
  if (own === 0xffffffff || (own === 0 && address === 0n && sizeBytes === 0n)) return '';
  const virtual = start !== 0n && ownAddress === 0;
  const enabled = (own & 1) !== 0;
  const where = address !== 0n ? hex(address, 8) : enabled ? '<ignored>' : '<unassigned>';
  const memoryOff = (config.u16(0x04) & COMMAND.MEMORY) === 0;
  const off = virtual ? '' : !enabled ? ' [disabled]' : memoryOff ? ' [disabled by cmd]' : '';
  return `\tExpansion ROM at ${where}${virtual ? ' [virtual]' : ''}${off}${sizeText(sizeBytes)}\n`;
}
