// A bridge's own lines: bus numbers, the three windows, secondary status and bridge control.
// Source: PCI-to-PCI Bridge 1.2, 3.2.5. Not here: legacy bridges' (CardBus).
import type { ConfigImage } from '../config-image.ts';
import type { BitNames } from '../bit-names.ts';
import type { KernelResource, LspciFunction } from './function.ts';
import { devselText } from './status.ts';
import { hex, marks, sizeText } from './text.ts';

const SECONDARY_BEFORE: BitNames = { '66MHz': 5, 'FastB2B': 7, 'ParErr': 8 };
const SECONDARY_AFTER: BitNames = { '>TAbort': 11, '<TAbort': 12, '<MAbort': 13, '<SERR': 14, '<PERR': 15 };
/** Bridge Control (PCI-to-PCI Bridge 1.2, 3.2.5.18). */
const BRIDGE_CONTROL: BitNames = { 'Parity': 0, 'SERR': 1, 'NoISA': 2, 'VGA': 3, 'VGA16': 4, 'MAbort': 5, '>Reset': 6, 'FastB2B': 7 };
const BRIDGE_TIMERS: BitNames = { PriDiscTmr: 8, SecDiscTmr: 9, DiscTmrStat: 10, DiscTmrSERREn: 11 };

export function busNumbersLine(config: ConfigImage): string {
  const [primary, secondary, subordinate] = [0x18, 0x19, 0x1a].map((at) => hex(config.u8(at), 2));
  return `\tBus: primary=${primary}, secondary=${secondary}, subordinate=${subordinate}, sec-latency=${config.u8(0x1b)}\n`;
}

/** Where Linux has a bridge's windows among its resources, with SR-IOV built in and without. */
const WINDOW_RESOURCES = { withVirtualFunctions: 13, without: 7 } as const;
const RESOURCES_WITH_VIRTUAL_FUNCTIONS = 17;

/**
 * The three windows. The kernel's prefetchable one is told as `[32-bit]`
 * wherever it lies, as lspci 3.13 does; the registers' by what they could hold. `busView` (-b): the registers'.
 */
export function windowLines({ config, kernel }: LspciFunction, verbosity: number, busView: boolean): string {
  const { resources = [] } = busView ? {} : kernel ?? {};
  const first = resources.length >= RESOURCES_WITH_VIRTUAL_FUNCTIONS ? WINDOW_RESOURCES.withVirtualFunctions : WINDOW_RESOURCES.without;
  const prefetchable = resources[first + 2];
  const inKernel = prefetchable !== undefined && prefetchable.end !== 0n;
  return ioWindow(config, verbosity) + memoryWindow(config, verbosity)
    + (inKernel ? kernelWindow(prefetchable, verbosity) : prefetchableWindow(config, verbosity));
}

function kernelWindow({ start, end }: KernelResource, verbosity: number): string {
  return rangeLine('Prefetchable memory behind bridge', start, end, true, 8, 32, verbosity);
}

function ioWindow(config: ConfigImage, verbosity: number): string {
  const [base, limit] = [config.u8(0x1c), config.u8(0x1d)];
  const [type, limitType] = [base & 0xf, limit & 0xf];
  if (type !== limitType || type > 1) return `\t!!! Unknown I/O range types ${hex(base, 1)}/${hex(limit, 1)}\n`;
  const upper = (at: number): bigint => (type === 1 ? BigInt(config.u16(at)) << 16n : 0n);
  const start = (BigInt(base & 0xf0) << 8n) | upper(0x30);
  const end = (BigInt(limit & 0xf0) << 8n) | upper(0x32);
  return rangeLine('I/O behind bridge', start, end + 0xfffn, end >= start, type === 1 ? 8 : 4, type === 1 ? 32 : 16, verbosity);
}

function memoryWindow(config: ConfigImage, verbosity: number): string {
  const [base, limit] = [config.u16(0x20), config.u16(0x22)];
  const [type, limitType] = [base & 0xf, limit & 0xf];
  if (type !== limitType || type !== 0) return `\t!!! Unknown memory range types ${hex(base, 1)}/${hex(limit, 1)}\n`;
  const [start, end] = [BigInt(base & 0xfff0) << 16n, BigInt(limit & 0xfff0) << 16n];
  return rangeLine('Memory behind bridge', start, end + 0xfffffn, end >= start, 8, 32, verbosity);
}

function prefetchableWindow(config: ConfigImage, verbosity: number): string {
  const [base, limit] = [config.u16(0x24), config.u16(0x26)];
  const [type, limitType] = [base & 0xf, limit & 0xf];
  if (type !== limitType || type > 1) return `\t!!! Unknown prefetchable memory range types ${hex(base, 1)}/${hex(limit, 1)}\n`;
  const wide = type === 1;
  const upper = (at: number): bigint => (wide ? BigInt(config.u32(at)) << 32n : 0n);
  const start = (BigInt(base & 0xfff0) << 16n) | upper(0x28);
  const end = (BigInt(limit & 0xfff0) << 16n) | upper(0x2c);
  return rangeLine('Prefetchable memory behind bridge', start, end + 0xfffffn, end >= start, wide ? 16 : 8, wide ? 64 : 32, verbosity);
}

/** A window that is closed (its end below its start) is told at -vvv only. */
function rangeLine(name: string, start: bigint, end: bigint, open: boolean, digits: number, bits: number, verbosity: number): string {
  const range = `${hex(start, digits)}-${hex(end, digits)}`;
  const marked = open ? sizeText(end - start + 1n) : ' [disabled]';
  return open || verbosity > 2 ? `\t${name}: ${range}${marked} [${bits}-bit]\n` : `\t${name}: [disabled] [${bits}-bit]\n`;
}

/** From -vv on. */
export function secondaryStatusLine(config: ConfigImage): string {
  const secondary = config.u16(0x1e);
  return `\tSecondary status: ${marks(secondary, SECONDARY_BEFORE)} DEVSEL=${devselText(secondary)} ${marks(secondary, SECONDARY_AFTER)}\n`;
}

/** From -vv on. */
export function bridgeControlLines(config: ConfigImage): string {
  const control = config.u16(0x3e);
  return `\tBridgeCtl: ${marks(control, BRIDGE_CONTROL)}\n\t\t${marks(control, BRIDGE_TIMERS)}\n`;
}
