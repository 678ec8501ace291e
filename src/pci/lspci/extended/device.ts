// What a device says of itself: serial number, vendor-specific, DVSEC, DOE, TPH, resizable BARs.
// Source: PCIe Base 6.0, 7.9.3, 7.9.5, 7.9.6, 7.9.24, 7.9.13, 7.8.6.
import { bit, field } from '../../bit-names.ts';
import { type CapabilityContext, type CapabilityText, inDetail } from '../context.ts';
import { hex, marks, sign } from '../text.ts';
import { cxlLines } from './cxl.ts';

export const serialNumber: CapabilityText = ({ config }, offset) => {
  if (!config.has(offset + 4, 8)) return 'Device Serial Number\n';
  const bytes = Array.from({ length: 8 }, (_, index) => hex(config.u8(offset + 11 - index), 2));
  return `Device Serial Number ${bytes.join('-')}\n`;
};

export const vendorSpecificExtended: CapabilityText = ({ config }, offset) => {
  if (!config.has(offset + 4, 4)) return 'Vendor Specific Information: <unreadable>\n';
  const header = config.u32(offset + 4);
  return `Vendor Specific Information: ID=${hex(header & 0xffff, 4)} Rev=${field(header, 16, 4)} Len=${hex(header >>> 20, 3)} <?>\n`;
};

const CXL_VENDOR = 0x1e98;

export const designatedVendorSpecific: CapabilityText = (context, offset) => {
  const { config } = context;
  if (!config.has(offset + 4, 6)) return 'Designated Vendor-Specific: <unreadable>\n';
  const header = config.u32(offset + 4);
  const vendor = header & 0xffff;
  const [id, revision, lengthBytes] = [config.u16(offset + 8), field(header, 16, 4), header >>> 20];
  const text = `Designated Vendor-Specific: Vendor=${hex(vendor, 4)} ID=${hex(id, 4)} Rev=${revision} Len=${lengthBytes}`;
  return vendor === CXL_VENDOR ? `${text}: CXL\n${cxlLines(context, { offset, id, revision, lengthBytes })}` : `${text} <?>\n`;
};

export const dataObjectExchange: CapabilityText = (context, offset) => {
  const { config, verbosity } = context;
  const text = 'Data Object Exchange\n';
  if (verbosity < 2) return text;
  // lspci reads the capability and control from one register further; what it cannot read it says.
  if (!config.has(offset + 4, 0x14)) return `${text}\t\t<unreadable>\n`;
  const [capability, control, status] = [config.u32(offset + 4), config.u32(offset + 8), config.u32(offset + 12)];
  const interrupts = bit(capability, 0);
  return `${text}\t\tDOECap: IntSup${sign(interrupts)}\n${interrupts ? `\t\t\tIntMsgNum ${field(capability, 1, 11)}\n` : ''}`
    + `\t\tDOECtl: IntEn${sign(bit(control, 1))}\n\t\tDOESta: ${marks(status, { Busy: 0, IntSta: 1, Error: 2, ObjectReady: 31 })}\n`;
};

export const tph: CapabilityText = (context, offset) => {
  const { config } = context;
  let text = 'Transaction Processing Hints\n';
  if (!inDetail(context, offset + 4, 4)) return text;
  const capability = config.u32(offset + 4);
  if (bit(capability, 1)) text += '\t\tInterrupt vector mode supported\n';
  if (bit(capability, 2)) text += '\t\tDevice specific mode supported\n';
  if (bit(capability, 8)) text += '\t\tExtended requester support\n';
  const places = ['No steering table available', 'Steering table in TPH capability structure', 'Steering table in MSI-X table', 'Reserved steering table location'];
  return `${text}\t\t${places[field(capability, 9, 2)] ?? ''}\n`;
};

const UNITS = ['M', 'G', 'T', 'P', 'E'];

/** 2 to the `exponent` MiB; past 8 EiB is no size. */
function barSize(exponent: number): string {
  if (exponent >= 10 * UNITS.length - 6) return ' <unknown>';
  return ` ${2 ** (exponent % 10)}${UNITS[Math.floor(exponent / 10)] ?? '?'}B`;
}

export function resizableBar(kind: 'Physical' | 'Virtual'): CapabilityText {
  return (context: CapabilityContext, offset: number) => {
    const { config } = context;
    let text = `${kind} Resizable BAR\n`;
    if (!inDetail(context, offset + 8, 4)) return text;
    const count = field(config.u32(offset + 8), 5, 3);
    if (count < 1 || count > 6) return `${text}\t\t<error in resizable BAR: num_bars=${count} is out of specification>\n`;
    for (let index = 0; index < count; index++) {
      const at = offset + 4 + 8 * index;
      if (!config.has(at, 8)) return `${text}\t\t<unreadable>\n`;
      const [supported, control] = [config.u32(at), config.u32(at + 4)];
      text += `\t\tBAR ${control & 7}: current size:${barSize(field(control, 8, 6))}, supported:`;
      for (let exponent = 0; exponent < 28; exponent++) if (bit(supported, exponent + 4)) text += barSize(exponent);
      for (let exponent = 28; exponent < 44; exponent++) if (bit(control, exponent - 12)) text += barSize(exponent);
      text += '\n';
    }
    return text;
  };
}
