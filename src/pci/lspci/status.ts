// Command and status register, latency, interrupt: as a line each (-vv), or short (`Flags: bus master, fast devsel`, -v).
// Source: PCI Local Bus 3.0, 6.2.2 and 6.2.3.
import type { BitNames } from '../bit-names.ts';
import { bit } from '../bit-names.ts';
import type { LspciFunction } from './function.ts';
import { hex, marks, named, sign } from './text.ts';

const COMMAND_BITS: BitNames = {
  'I/O': 0, 'Mem': 1, 'BusMaster': 2, 'SpecCycle': 3, 'MemWINV': 4, 'VGASnoop': 5, 'ParErr': 6, 'Stepping': 7, 'SERR': 8, 'FastB2B': 9, 'DisINTx': 10,
};
const STATUS_BEFORE: BitNames = { 'Cap': 4, '66MHz': 5, 'UDF': 6, 'FastB2B': 7, 'ParErr': 8 };
const STATUS_AFTER: BitNames = { '>TAbort': 11, '<TAbort': 12, '<MAbort': 13, '>SERR': 14, '<PERR': 15 };

/** DEVSEL timing, bits 10:9 of both status registers. */
export function devselText(status: number): string {
  return named(['fast', 'medium', 'slow'], (status >> 9) & 3, '??');
}

/** The number that software sees: the kernel's, or the register's when there is no kernel or it is not asked (-b). */
function irqOf({ config, kernel }: LspciFunction, busView: boolean): number {
  return busView || kernel === undefined ? config.u8(0x3c) : kernel.irq;
}

export interface HeaderFacts {
  readonly minGrant: number;
  readonly maxLatency: number;
}

/** The lines of -vv. */
export function longStatus(fn: LspciFunction, { minGrant, maxLatency }: HeaderFacts, busView: boolean): string {
  const { config, kernel } = fn;
  const [command, status] = [config.u16(0x04), config.u16(0x06)];
  const [cacheLine, latency, pin] = [config.u8(0x0c), config.u8(0x0d), config.u8(0x3d)];
  let text = `\tControl: ${marks(command, COMMAND_BITS)}\n`
    + `\tStatus: ${marks(status, STATUS_BEFORE)} DEVSEL=${devselText(status)} ${marks(status, STATUS_AFTER)} INTx${sign(bit(status, 3))}\n`;
  if (bit(command, 2)) {
    const limits = [minGrant === 0 ? '' : `${minGrant * 250}ns min`, maxLatency === 0 ? '' : `${maxLatency * 250}ns max`].filter((one) => one !== '');
    text += `\tLatency: ${latency}${limits.length === 0 ? '' : ` (${limits.join(', ')})`}${cacheLine === 0 ? '' : `, Cache Line Size: ${cacheLine * 4} bytes`}\n`;
  }
  const irq = irqOf(fn, busView);
  if (pin !== 0 || irq !== 0) text += `\tInterrupt: pin ${pin === 0 ? '?' : String.fromCharCode((64 + pin) & 0xff)} routed to IRQ ${irq}\n`;
  if (kernel?.numaNode !== undefined) text += `\tNUMA node: ${kernel.numaNode}\n`;
  if (kernel?.iommuGroup !== undefined) text += `\tIOMMU group: ${kernel.iommuGroup}\n`;
  return text;
}

/** Built-in self test, of those that have one. */
export function selfTest({ config }: LspciFunction): string {
  const bist = config.u8(0x0f);
  if (!bit(bist, 7)) return '';
  return bit(bist, 6) ? '\tBIST is running\n' : `\tBIST result: ${hex(bist & 0xf, 2)}\n`;
}

/** The line of -v. */
export function shortStatus(fn: LspciFunction, busView: boolean): string {
  const { config, kernel } = fn;
  const [command, status] = [config.u16(0x04), config.u16(0x06)];
  const [latency, irq] = [config.u8(0x0d), irqOf(fn, busView)];
  const words = [
    bit(command, 2) ? 'bus master' : '', bit(command, 5) ? 'VGA palette snoop' : '', bit(command, 7) ? 'stepping' : '', bit(command, 9) ? 'fast Back2Back' : '',
    bit(status, 5) ? '66MHz' : '', bit(status, 6) ? 'user-definable features' : '',
    `${devselText(status)} devsel`,
    bit(command, 2) ? `latency ${latency}` : '',
    irq === 0 ? '' : `IRQ ${irq}`,
    kernel?.numaNode === undefined ? '' : `NUMA node ${kernel.numaNode}`,
    kernel?.iommuGroup === undefined ? '' : `IOMMU group ${kernel.iommuGroup}`,
  ];
  return `\tFlags: ${words.filter((word) => word !== '').join(', ')}\n`;
}
