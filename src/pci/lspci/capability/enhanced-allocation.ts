// Enhanced Allocation: resources at fixed addresses, beside or in place of BARs. Source: PCIe Base 6.0, 7.8.5.
import { bit, field } from '../../bit-names.ts';
import type { ConfigImage } from '../../config-image.ts';
import type { CapabilityText } from '../context.ts';
import { hex, sign } from '../text.ts';

const PROPERTIES: Readonly<Record<number, string>> = {
  0x00: 'memory space, non-prefetchable', 0x01: 'memory space, prefetchable', 0x02: 'I/O space', 0x03: 'VF memory space, prefetchable', 0x04: 'VF memory space, non-prefetchable',
  0x05: 'allocation behind bridge, non-prefetchable memory', 0x06: 'allocation behind bridge, prefetchable memory', 0x07: 'allocation behind bridge, I/O space',
  0xfd: 'memory space resource unavailable for use', 0xfe: 'I/O space resource unavailable for use',
};

function equivalentBar(indicator: number): string {
  if (indicator < 6) return `BAR ${indicator}`;
  if (indicator < 9) return ['resource behind function', 'not indicated', 'expansion ROM'][indicator - 6] ?? '';
  return indicator < 15 ? `VF-BAR ${indicator - 9}` : 'reserved';
}

export function enhancedAllocation(headerType: number): CapabilityText {
  return ({ config, verbosity }, offset) => {
    const count = config.u8(offset + 2) & 0x3f;
    let text = `Enhanced Allocation (EA): NumEntries=${count}`;
    const isBridge = headerType === 1;
    if (isBridge && config.has(offset + 4, 2)) text += `, secondary=${config.u8(offset + 4)}, subordinate=${config.u8(offset + 5)}`;
    text += '\n';
    if (verbosity < 2) return text;
    let at = offset + (isBridge ? 8 : 4);
    for (let index = 0; index < count; index++) {
      if (!config.has(at, 4)) return text;
      const header = config.u32(at);
      text += entryLines(config, at, index, header);
      at += 4 * ((header & 7) + 1);
    }
    return text;
  };
}

function entryLines(config: ConfigImage, at: number, index: number, header: number): string {
  const [primary, secondary] = [field(header, 8, 8), field(header, 16, 8)];
  let text = `\t\tEntry ${index}: Enable${sign(bit(header, 31))} Writable${sign(bit(header, 30))} EntrySize=${header & 7}\n`
    + `\t\t\t BAR Equivalent Indicator: ${equivalentBar(field(header, 4, 4))}\n`
    + `\t\t\t PrimaryProperties: ${PROPERTIES[primary] ?? (primary === 0xff ? 'entry unavailable for use, PrimaryProperties should be used' : `[${hex(primary, 2)}]`)}\n`
    + `\t\t\t SecondaryProperties: ${PROPERTIES[secondary] ?? (secondary === 0xff ? 'entry unavailable for use' : `[${hex(secondary, 2)}]`)}\n`;
  if (!config.has(at + 4, 8)) return text;
  const [base, most] = [config.u32(at + 4), config.u32(at + 8)];
  // The upper halves follow both lower ones, each where its lower half says so.
  let upperAt = at + 12;
  const upper = (low: number): string => {
    if (!bit(low, 1)) return '';
    const shown = hex(config.u32(upperAt), 1);
    upperAt += 4;
    return shown;
  };
  text += `\t\t\t Base: ${upper(base)}${hex((base & ~3) >>> 0, 8)}\n`;
  return `${text}\t\t\t MaxOffset: ${upper(most)}${hex((most | 3) >>> 0, 8)}\n`;
}
