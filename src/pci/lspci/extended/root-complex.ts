// What only a root complex has: its links, and the endpoints of an event collector. Source: PCIe Base 6.0, 7.9.8 and 7.9.10.
import { bit, field } from '../../bit-names.ts';
import { type CapabilityText, inDetail } from '../context.ts';
import { hex, named, sign } from '../text.ts';

export const rootComplexLink: CapabilityText = (context, offset) => {
  const { config } = context;
  let text = 'Root Complex Link\n';
  if (!inDetail(context, offset + 4, 12)) return text;
  const description = config.u32(offset + 4);
  const kind = description & 0xff;
  text += `\t\tDesc:\tPortNumber=${hex(description >>> 24, 2)} ComponentID=${hex(field(description, 16, 8), 2)} EltType=${named(['Config', 'Egress', 'Internal'], kind, `??${kind}`)}\n`;
  for (let index = 0; index < field(description, 8, 8); index++) {
    const at = offset + 16 + 16 * index;
    text += `\t\tLink${index}:\t`;
    if (!config.has(at, 16)) return `${text}<unreadable>\n`;
    const link = config.u32(at);
    const [low, high] = [config.u32(at + 8), config.u32(at + 12)];
    const isConfig = bit(link, 1);
    text += `Desc:\tTargetPort=${hex(link >>> 24, 2)} TargetComponent=${hex(field(link, 16, 8), 2)} AssocRCRB${sign(bit(link, 2))} LinkType=${isConfig ? 'Config' : 'MemMapped'} LinkValid${sign(bit(link, 0))}\n`;
    if (!isConfig) {
      text += `\t\t\tAddr:\t${hex(high, 8)}${hex(low, 8)}\n`;
      continue;
    }
    const busBits = (low & 7) === 0 ? 8 : low & 7;
    text += `\t\t\tAddr:\t${hex(field(low, 20, busBits), 2)}:${hex(field(low, 15, 5), 2)}.${field(low, 12, 3)}  CfgSpace=${hex(high, 8)}${hex(low, 8)}\n`;
  }
  return text;
};

/** `0-1, 17, 24-25`: the numbers of the bits that are set. Of a range that ends at 31 lspci tells its start. */
function ranges(value: number): string {
  const shown: string[] = [];
  for (let from = 0; from < 32; from++) {
    if (!bit(value, from)) continue;
    let to = from;
    while (to < 31 && bit(value, to + 1)) to += 1;
    shown.push(to === from || to === 31 ? `${from}` : `${from}-${to}`);
    from = to;
  }
  return shown.join(', ');
}

export const eventCollector: CapabilityText = (context, offset) => {
  const { config } = context;
  let text = 'Root Complex Event Collector Endpoint Association\n';
  if (!inDetail(context, offset + 4, 4)) return text;
  const bitmap = config.u32(offset + 4);
  text += `\t\tRCiEPBitmap: ${bitmap === 0 ? '00000000 [none]' : `RCiEP at Device(s): ${ranges(bitmap)}`}\n`;
  const version = field(config.u32(offset), 16, 4);
  if (version < 2 || !config.has(offset + 8, 4)) return text;
  const buses = config.u32(offset + 8);
  const [next, last] = [field(buses, 8, 8), field(buses, 16, 8)];
  return `${text}\t\tAssociatedBusNumbers: ${next === 0xff && last === 0 ? 'ff-00 [none]' : `${hex(next, 2)}-${hex(last, 2)}`}\n`;
};
