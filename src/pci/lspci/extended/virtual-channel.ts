// Virtual channels and their arbitration. Source: PCIe Base 6.0, 7.9.1.
import { bit, field } from '../../bit-names.ts';
import { type CapabilityText, inDetail } from '../context.ts';
import { hex, named, sign } from '../text.ts';

const ARBITRATION = ['Fixed', 'WRR32', 'WRR64', 'WRR128'];
const PORT_ARBITRATION = [...ARBITRATION, 'TWRR128', 'WRR256'];

function selected(names: readonly string[], index: number): string {
  return named(names, index, `??${index}`);
}

/** Every scheme that has a name, and those without one that are there. */
function schemes(value: number, names: readonly string[]): string {
  const shown = Array.from({ length: 8 }, (_, index) => index).filter((index) => index < names.length || bit(value, index));
  return shown.map((index) => `${selected(names, index)}${sign(bit(value, index))}`).join(' ');
}

export const virtualChannel: CapabilityText = (context, offset) => {
  const { config } = context;
  let text = 'Virtual Channel\n';
  if (!inDetail(context, offset + 4, 12)) return text;
  const [capability1, capability2] = [config.u32(offset + 4), config.u32(offset + 8)];
  const [control, status] = [config.u16(offset + 12), config.u16(offset + 14)];
  text += `\t\tCaps:\tLPEVC=${field(capability1, 4, 3)} RefClk=${selected(['100ns'], field(capability1, 8, 2))} PATEntryBits=${1 << field(capability1, 10, 2)}\n`
    + `\t\tArb:\t${schemes(capability2, ARBITRATION)}\n\t\tCtrl:\tArbSelect=${selected(ARBITRATION, field(control, 1, 3))}\n\t\tStatus:\tInProgress${sign(bit(status, 0))}\n`;
  const table = (capability2 >>> 24) * 16;
  if (table !== 0) text += `\t\tPort Arbitration Table [${hex(offset + table, 1)}] <?>\n`;
  for (let index = 0; index <= (capability1 & 7); index++) {
    const at = offset + 16 + 12 * index;
    text += `\t\tVC${index}:\t`;
    if (!config.has(at, 12)) {
      text += '<unreadable>\n';
      continue;
    }
    const [own, resource, state] = [config.u32(at), config.u32(at + 4), config.u16(at + 10)];
    text += `Caps:\tPATOffset=${hex(own >>> 24, 2)} MaxTimeSlots=${field(own, 16, 7) + 1} RejSnoopTrans${sign(bit(own, 15))}\n`
      + `\t\t\tArb:\t${schemes(own, PORT_ARBITRATION)}\n`
      + `\t\t\tCtrl:\tEnable${sign(bit(resource, 31))} ID=${field(resource, 24, 3)} ArbSelect=${selected(PORT_ARBITRATION, field(resource, 17, 3))} TC/VC=${hex(resource & 0xff, 2)}\n`
      + `\t\t\tStatus:\tNegoPending${sign(bit(state, 1))} InProgress${sign(bit(state, 0))}\n`;
    if (own >>> 24 !== 0) text += '\t\t\tPort Arbitration Table <?>\n';
  }
  return text;
};
