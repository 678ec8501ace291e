// Integrity and Data Encryption: link streams, and selective ones with their associations. Source: PCIe Base 6.0, 7.9.26.
import { bit, field } from '../../bit-names.ts';
import type { ConfigImage } from '../../config-image.ts';
import { type CapabilityText, inDetail } from '../context.ts';
import { hex, marks, named, sign } from '../text.ts';

const AGGREGATION = ['-', '=2', '=4', '=8'];
const HEADER_ENCRYPTION = ['no', '17:2', '25:2', '33:2', '41:2'];

function algorithm(value: number): string {
  return value === 0 ? 'AES-GCM-256-96b' : 'reserved';
}

/** The name, or `??` and the number. */
function numbered(names: readonly string[], value: number): string {
  return named(names, value, `??${value}`);
}

function state(status: number): string {
  return numbered(['insecure', 'reserved', 'secure'], status & 0xf);
}

/** What a link stream's and a selective stream's control register share. Of a link stream lspci takes the enable bit for PCRC's. */
function controlText(control: number, selective: boolean): string {
  const sub = (low: number): string => AGGREGATION[field(control, low, 2)] ?? '';
  return `En${sign(bit(control, 0))} NPR${sub(2)} PR${sub(4)} CPL${sub(6)} PCRC${sign(bit(control, selective ? 8 : 0))}${selective ? ` CFG${sign(bit(control, 9))}` : ''}`
    + ` HdrEnc=${numbered(HEADER_ENCRYPTION, field(control, 10, 4))} Alg='${algorithm(field(control, 14, 5))}' TC${field(control, 19, 3)} ID${control >>> 24}`;
}

export const dataEncryption: CapabilityText = (context, offset) => {
  const { config } = context;
  let text = 'Integrity & Data Encryption\n';
  if (!inDetail(context, offset + 4, 8)) return text;
  const capability = config.u32(offset + 4);
  const classes = field(capability, 13, 3) + 1;
  const links = bit(capability, 0) ? classes : 0;
  const streams = bit(capability, 1) ? field(capability, 16, 8) + 1 : 0;
  text += `\t\tIDECap: Lnk=${links} Sel=${streams} ${marks(capability, { FlowThru: 2, PartHdr: 3, Aggr: 4, PCPC: 5, IDE_KM: 6 })}`
    + ` Alg='${algorithm(field(capability, 8, 5))}' TCs=${classes} TeeLim${sign(bit(capability, 24))}\n`
    + `\t\tIDECtl: FTEn${sign(bit(config.u32(offset + 8), 2))}\n`;
  let at = offset + 12;
  for (let index = 0; index < links; index++) {
    if (!config.has(at, 8)) return `${text}\t\t<unreadable>\n`;
    const status = config.u32(at + 4);
    text += `\t\t[${hex(at, 1)}]LinkIDE#${index} Ctl: ${controlText(config.u32(at), false)}\n`
      + `\t\t[${hex(at + 4, 1)}]LinkIDE#${index} Sta: Status=${state(status)} RecvChkFail${sign(bit(status, 31))}\n`;
    at += 8;
  }
  for (let index = 0; index < streams; index++) {
    if (!config.has(at, 20)) return `${text}\t\t<unreadable>\n`;
    const blocks = config.u32(at) & 0xf;
    text += streamLines(config, at, index, blocks);
    at += 20 + 12 * blocks;
  }
  return text;
};

function streamLines(config: ConfigImage, start: number, index: number, blocks: number): string {
  const label = (at: number): string => `\t\t[${hex(at, 1)}]SelectiveIDE#${index}`;
  const [control, status, limits, base] = [4, 8, 12, 16].map((at) => config.u32(start + at)) as [number, number, number, number];
  let text = `${label(start)} Cap: RID#=${blocks}\n`
    + `${label(start + 4)} Ctl: ${controlText(control, true)}${bit(control, 22) ? ' Default' : ''}\n`
    + `${label(start + 8)} Sta: ${state(status)} RecvChkFail${sign(bit(status, 31))}\n`
    + `${label(start + 12)} RID: Valid${sign(bit(base, 0))} Base=${hex(field(base, 8, 16), 1)} Limit=${hex(field(limits, 8, 16), 1)} SegBase=${hex(base >>> 24, 1)}\n`;
  for (let block = 0; block < blocks; block++) {
    const at = start + 20 + 12 * block;
    if (!config.has(at, 12)) return `${text}\t\t<unreadable>\n`;
    const low = config.u32(at);
    const address = (upper: number, from: number): bigint => (BigInt(upper) << 32n) | (BigInt(field(low, from, 12)) << 20n);
    text += `${label(at)} RID#${block}: Valid${sign(bit(low, 0))} Base=${hex(address(config.u32(at + 8), 8), 1)} Limit=${hex(address(config.u32(at + 4), 20) | 0xfffffn, 1)}\n`;
  }
  return text;
}
