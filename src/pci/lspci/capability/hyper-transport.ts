// HyperTransport: kinds by their top bits, and the registers of the two kinds of interface. Source: HyperTransport 3.10, 7.
import { bit, type BitNames, field } from '../../bit-names.ts';
import type { ConfigImage } from '../../config-image.ts';
import { type CapabilityContext, type CapabilityText, inDetail } from '../context.ts';
import { hex, marks, named, sign } from '../text.ts';

const KINDS: readonly (readonly [mask: number, value: number, name: string])[] = [
  [0xe000, 0x0000, 'Slave or Primary Interface'], [0xe000, 0x2000, 'Host or Secondary Interface'],
  [0xf800, 0x4000, 'Switch'], [0xf800, 0x8000, 'Interrupt Discovery and Configuration'], [0xf800, 0x8800, 'Revision ID:'],
  [0xf800, 0x9000, 'UnitID Clumping'], [0xf800, 0x9800, 'Extended Configuration Space Access'], [0xf800, 0xa000, 'Address Mapping'],
  [0xf800, 0xa800, 'MSI Mapping'], [0xf800, 0xb000, 'DirectRoute'], [0xf800, 0xb800, 'VCSet'], [0xf800, 0xc000, 'Retry Mode'], [0xf800, 0xc800, 'X86 (reserved)'],
];

export const hyperTransport: CapabilityText = (context, offset) => {
  const { config } = context;
  const command = config.u16(offset + 2);
  const [, value, name] = KINDS.find(([mask, kind]) => (command & mask) === kind) ?? [0, -1, `#${hex(command >> 11, 2)}`];
  switch (value) {
    case 0x0000: return `HyperTransport: ${name}\n${slaveLines(context, offset, command)}`;
    case 0x2000: return `HyperTransport: ${name}\n${hostLines(context, offset, command)}`;
    case 0x8800: return `HyperTransport: Revision ID: ${revision(command)}\n`;
    case 0xa800: return `HyperTransport: MSI Mapping ${messageMapping(context, offset, command)}`;
    default: return `HyperTransport: ${name}\n`;
  }
};

function revision(value: number): string {
  return `${field(value, 5, 3)}.${(value & 0x1f).toString().padStart(2, '0')}`;
}

function messageMapping(context: CapabilityContext, offset: number, command: number): string {
  const fixed = bit(command, 1);
  const text = `Enable${sign(bit(command, 0))} Fixed${sign(fixed)}\n`;
  if (fixed || !inDetail(context, offset + 4, 8)) return text;
  return `${text}\t\tMapping Address Base: ${hex((context.config.u64(offset + 4) >> 20n) << 20n, 16)}\n`;
}

const LINK_CONTROL: BitNames = { 'CFlE': 1, 'CST': 2, 'CFE': 3, '<LkFail': 4, 'Init': 5, 'EOC': 6, 'TXO': 7 };
const LINK_CONTROL_NEW: BitNames = { 'IsocEn': 12, 'LSEn': 13, 'ExtCTL': 14, '64b': 15 };
const LINK_ERROR: BitNames = { '<Prot': 4, '<Ovfl': 5, '<EOC': 6, 'CTLTm': 7 };
const WIDTHS = ['8bit', '16bit', '[2]', '32bit', '2bit', '4bit', '[6]', 'N/C'];
const FREQUENCIES = ['200MHz', '300MHz', '400MHz', '500MHz', '600MHz', '800MHz', '1.0GHz', '1.2GHz', '1.4GHz', '1.6GHz', '[a]', '[b]', '[c]', '[d]', '[e]', 'Vend'];
const FREQUENCY_CAPABILITY: BitNames = {
  '200MHz': 0, '300MHz': 1, '400MHz': 2, '500MHz': 3, '600MHz': 4, '800MHz': 5, '1.0GHz': 6, '1.2GHz': 7, '1.4GHz': 8, '1.6GHz': 9, 'Vend': 15,
};
const FEATURES: BitNames = { 'IsocFC': 0, 'LDTSTOP': 1, 'CRCTM': 2, 'ECTLT': 3, '64bA': 4, 'UIDRD': 5 };
const ERROR_HANDLING: BitNames = {
  PFlE: 0, OFlE: 1, PFE: 2, OFE: 3, EOCFE: 4, RFE: 5, CRCFE: 6, SERRFE: 7, CF: 8, RE: 9, PNFE: 10, ONFE: 11, EOCNFE: 12, RNFE: 13, CRCNFE: 14, SERRNFE: 15,
};

/** Before revision 1.02 (0x22) some bits of the link's registers were not there. */
function isOld(rid: number): boolean {
  return rid < 0x22;
}

function linkControl(name: string, value: number, rid: number): string {
  return `\t\tLink Control${name}: ${marks(value, LINK_CONTROL)} <CRCErr=${hex(field(value, 8, 4), 1)}${isOld(rid) ? '' : ` ${marks(value, LINK_CONTROL_NEW)}`}\n`;
}

function linkConfig(name: string, value: number, rid: number): string {
  const parts: readonly (readonly [string, number, string, number])[] = [['MLWI', 0, 'DwFcIn', 3], ['MLWO', 4, 'DwFcOut', 7], ['LWI', 8, 'DwFcInEn', 11], ['LWO', 12, 'DwFcOutEn', 15]];
  const shown = parts.map(([width, low, flow, number]) => `${width}=${named(WIDTHS, field(value, low, 3))}${isOld(rid) ? '' : ` ${flow}${sign(bit(value, number))}`}`);
  return `\t\tLink Config${name}: ${shown.join(' ')}\n`;
}

/** lspci looks at the lower half of the frequencies' 16 bits. */
function linkFrequency(config: ConfigImage, name: string, errorAt: number, capabilityAt: number): string {
  const value = config.u8(errorAt);
  return `\t\tLink Frequency${name}: ${named(FREQUENCIES, value & 0xf)}\n\t\tLink Error${name}: ${marks(value, LINK_ERROR)}\n`
    + `\t\tLink Frequency Capability${name}: ${marks(config.u8(capabilityAt), FREQUENCY_CAPABILITY)}\n`;
}

function tailLines(config: ConfigImage, errorsAt: number, upperAt: number): string {
  return `\t\tError Handling: ${marks(config.u16(errorsAt), ERROR_HANDLING)}\n`
    + `\t\tPrefetchable memory behind bridge Upper: ${hex(config.u8(upperAt), 2)}-${hex(config.u8(upperAt + 1), 2)}\n`;
}

function slaveLines(context: CapabilityContext, offset: number, command: number): string {
  const { config } = context;
  if (!inDetail(context, offset + 4, 0x18)) return '';
  const rid = config.u8(offset + 0xc);
  const old = rid < 0x22 && rid > 0x11 ? '\t\t!!! Possibly incomplete decoding\n' : '';
  let text = `${old}\t\tCommand: BaseUnitID=${command & 0x1f} UnitCnt=${field(command, 5, 5)} ${marks(command, { MastHost: 10, DefDir: 11 })}${isOld(rid) ? '' : ` DUL${sign(bit(command, 12))}`}\n`;
  for (const [name, at] of [[' 0', 4], [' 1', 8]] as const) text += linkControl(name, config.u16(offset + at), rid) + linkConfig(name, config.u16(offset + at + 2), rid);
  text += `\t\tRevision ID: ${revision(rid)}\n`;
  if (isOld(rid)) return text;
  return text + linkFrequency(config, ' 0', offset + 0xd, offset + 0xe) + `\t\tFeature Capability: ${marks(config.u8(offset + 0x10), FEATURES)}\n`
    + linkFrequency(config, ' 1', offset + 0x11, offset + 0x12) + tailLines(config, offset + 0x16, offset + 0x18)
    + `\t\tBus Number: ${hex(config.u8(offset + 0x1a), 2)}\n`;
}

function hostLines(context: CapabilityContext, offset: number, command: number): string {
  const { config } = context;
  if (!inDetail(context, offset + 4, 0x14)) return '';
  const rid = config.u8(offset + 8);
  const old = rid < 0x22 && rid > 0x11 ? '\t\t!!! Possibly incomplete decoding\n' : '';
  let text = `${old}\t\tCommand: ${marks(command, { WarmRst: 0, DblEnd: 1 })}`;
  text += isOld(rid) ? '\n' : ` DevNum=${field(command, 2, 5)} ${marks(command, { 'ChainSide': 7, 'HostHide': 8, 'Slave': 10, '<EOCErr': 11, 'DUL': 12 })}\n`;
  text += linkControl('', config.u16(offset + 4), rid) + linkConfig('', config.u16(offset + 6), rid) + `\t\tRevision ID: ${revision(rid)}\n`;
  if (isOld(rid)) return text;
  const features = config.u16(offset + 0xc);
  text += linkFrequency(config, '', offset + 9, offset + 0xa) + `\t\tFeature Capability: ${marks(features, { ...FEATURES, ExtRS: 8, UCnfE: 9 })}\n`;
  return bit(features, 8) ? text + tailLines(config, offset + 0x12, offset + 0x14) : text;
}
