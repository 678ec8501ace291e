// BARs and the expansion ROM: `Region 4: Memory at fce00000 (64-bit, prefetchable) [size=16K]`.
// Source: PCI Local Bus 3.0, 6.2.5; Linux include/linux/ioport.h for what the kernel says of them.
import type { ConfigImage } from '../config-image.ts';
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
  /** The register has an address that the kernel does not use. */
  readonly ignored: boolean;
}

/** The lines of `count` BARs. `busView` (-b): what the registers say, not the kernel. */
export function regionLines(fn: LspciFunction, count: number, verbosity: number, busView: boolean): string {
  let text = '';
  let upperHalf = false;
  for (let index = 0; index < count; index++) {
    const register = fn.config.u32(0x10 + 4 * index);
    const region = regionOf(fn, index, count, register, upperHalf, busView);
    if (region !== undefined) text += regionLine(fn, index, region, verbosity);
    upperHalf = !upperHalf && register !== 0xffffffff && (register & 7) === 4;
  }
  return text;
}

/**
 * Without a kernel, and with -b, lspci shows the upper half of a 64-bit BAR, when there is something in it, as one more without an
 * address, and so does this; a 64-bit BAR in the last register has no upper half, and no address either.
 */
function regionOf(fn: LspciFunction, index: number, count: number, register: number, upperHalf: boolean, busView: boolean): Region | undefined {
  const resource = busView ? undefined : fn.kernel?.resources[index];
  if (fn.kernel !== undefined && !busView && upperHalf) return undefined;
  const own = upperHalf ? 0n : ownAddress(fn.config, index, count, register);
  const start = resource?.start ?? 0n;
  const sizeBytes = resource === undefined || resource.end === 0n ? 0n : resource.end - start + 1n;
  if ((register === 0 || register === 0xffffffff) && start === 0n && sizeBytes === 0n) return undefined;
  const virtual = start !== 0n && own === 0n;
  return {
    flags: virtual || register === 0xffffffff ? flagsOf(resource) : register,
    address: resource === undefined ? own : start,
    sizeBytes, virtual,
    enhanced: ((resource?.flags ?? 0n) & ENHANCED_ALLOCATION) !== 0n,
    ignored: resource !== undefined && start === 0n && own !== 0n,
  };
}

function ownAddress(config: ConfigImage, index: number, count: number, register: number): bigint {
  if (register === 0xffffffff) return 0n;
  if ((register & 1) !== 0) return BigInt((register & ~3) >>> 0);
  const low = BigInt((register & ~15) >>> 0);
  if ((register & 6) !== 4) return low;
  return index < count - 1 ? low | (BigInt(config.u32(0x14 + 4 * index)) << 32n) : 0n;
}

/** The register's flags as the kernel has them, of one that shows none. */
function flagsOf(resource: KernelResource | undefined): number {
  const flags = resource?.flags ?? 0n;
  if ((flags & IORESOURCE.IO) !== 0n) return 1;
  const wide = (flags & IORESOURCE.MEM_64) !== 0n ? 4 : 0;
  return wide | ((flags & IORESOURCE.PREFETCH) !== 0n ? 8 : 0);
}

function regionLine({ config }: LspciFunction, index: number, region: Region, verbosity: number): string {
  const { flags, address, sizeBytes, virtual, enhanced, ignored } = region;
  const label = verbosity > 1 ? `\tRegion ${index}: ` : '\t';
  const isIo = (flags & 1) !== 0;
  const decoding = (config.u16(0x04) & (isIo ? COMMAND.IO : COMMAND.MEMORY)) !== 0;
  const marked = `${virtual ? ' [virtual]' : decoding ? '' : ' [disabled]'}${enhanced ? ' [enhanced]' : ''}${sizeText(sizeBytes)}\n`;
  const nowhere = ignored ? '<ignored>' : '<unassigned>';
  if (isIo) return `${label}I/O ports at ${address !== 0n || (decoding && !ignored) ? hex(address, 4) : nowhere}${marked}`;
  const type = ['32-bit', 'low-1M', '64-bit', 'type 3'][(flags >> 1) & 3] ?? '';
  return `${label}Memory at ${address === 0n ? nowhere : hex(address, 8)} (${type}, ${(flags & 8) === 0 ? 'non-' : ''}prefetchable)${marked}`;
}

/** The expansion ROM's line, or nothing. `register` is its offset: 0x30 of endpoints, 0x38 of bridges. */
export function romLine({ config, kernel }: LspciFunction, register: number, busView: boolean): string {
  const own = config.u32(register);
  const resource = busView ? undefined : kernel?.resources[ROM_INDEX];
  const start = resource?.start ?? 0n;
  const sizeBytes = resource === undefined || resource.end === 0n ? 0n : resource.end - start + 1n;
  const written = (own & 0xfffff800) >>> 0;
  const address = resource !== undefined ? start & ~0x7ffn : own === 0xffffffff ? 0n : BigInt(written);
  if (own === 0 && address === 0n && sizeBytes === 0n) return '';
  const virtual = start !== 0n && written === 0;
  const where = address !== 0n ? hex(address, 8) : written !== 0 ? '<ignored>' : '<unassigned>';
  const memoryOff = (config.u16(0x04) & COMMAND.MEMORY) === 0;
  const off = virtual ? '' : (own & 1) === 0 ? ' [disabled]' : memoryOff ? ' [disabled by cmd]' : '';
  return `\tExpansion ROM at ${where}${virtual ? ' [virtual]' : ''}${off}${sizeText(sizeBytes)}\n`;
}
