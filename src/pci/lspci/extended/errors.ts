// Error reporting: AER and downstream port containment. Source: PCIe Base 6.0, 7.8.4 and 7.9.14.
import { CORRECTABLE_ERRORS, UNCORRECTABLE_ERRORS } from '../../aer.ts';
import { bit, type BitNames, field } from '../../bit-names.ts';
import { PCIE_TYPE } from '../capability/pcie-type.ts';
import { type CapabilityText, inDetail } from '../context.ts';
import { hex, marks, sign } from '../text.ts';

/** The names of a table with the bits from `low` to `high`. */
function between(names: BitNames, low: number, high: number): BitNames {
  return Object.fromEntries(Object.entries(names).filter(([, number]) => number >= low && number <= high));
}

const UNCORRECTABLE_LINES = [between(UNCORRECTABLE_ERRORS, 0, 18), between(UNCORRECTABLE_ERRORS, 19, 25), between(UNCORRECTABLE_ERRORS, 26, 31)];
const AER_CONTROL: BitNames = { ECRCGenCap: 5, ECRCGenEn: 6, ECRCChkCap: 7, ECRCChkEn: 8 };
const AER_LOG: BitNames = { MultHdrRecCap: 9, MultHdrRecEn: 10, TLPPfxPres: 11, HdrLogCap: 12 };
const ROOT_COMMAND: BitNames = { CERptEn: 0, NFERptEn: 1, FERptEn: 2 };
const ROOT_STATUS: BitNames = { CERcvd: 0, MultCERcvd: 1, UERcvd: 2, MultUERcvd: 3 };
const ROOT_MESSAGES: BitNames = { FirstFatal: 4, NonFatalMsg: 5, FatalMsg: 6 };

export const aer: CapabilityText = (context, offset) => {
  const { config, pcieType } = context;
  let text = 'Advanced Error Reporting\n';
  if (!inDetail(context, offset + 4, 40)) return text;
  for (const [name, at] of [['UESta', 4], ['UEMsk', 8], ['UESvrt', 12]] as const) {
    text += `\t\t${name}:\t${UNCORRECTABLE_LINES.map((names) => marks(config.u32(offset + at), names)).join('\n\t\t\t')}\n`;
  }
  for (const [name, at] of [['CESta', 16], ['CEMsk', 20]] as const) text += `\t\t${name}:\t${marks(config.u32(offset + at), CORRECTABLE_ERRORS)}\n`;
  const control = config.u32(offset + 24);
  text += `\t\tAERCap:\tFirst Error Pointer: ${hex(control & 0x1f, 2)}, ${marks(control, AER_CONTROL)}\n\t\t\t${marks(control, AER_LOG)}\n`
    + `\t\tHeaderLog: ${[28, 32, 36, 40].map((at) => hex(config.u32(offset + at), 8)).join(' ')}\n`;
  const root = pcieType === PCIE_TYPE.ROOT_PORT || pcieType === PCIE_TYPE.EVENT_COLLECTOR;
  if (!root || !config.has(offset + 44, 12)) return text;
  const status = config.u32(offset + 48);
  return `${text}\t\tRootCmd: ${marks(config.u32(offset + 44), ROOT_COMMAND)}\n`
    + `\t\tRootSta: ${marks(status, ROOT_STATUS)}\n\t\t\t ${marks(status, ROOT_MESSAGES)} IntMsgNum ${status >>> 27}\n`
    + `\t\tErrorSrc: ERR_COR: ${hex(config.u16(offset + 52), 4)} ERR_FATAL/NONFATAL: ${hex(config.u16(offset + 54), 4)}\n`;
};

export const downstreamPortContainment: CapabilityText = (context, offset) => {
  const { config } = context;
  const text = 'Downstream Port Containment\n';
  if (!inDetail(context, offset + 4, 8)) return text;
  const [capability, control, status] = [config.u16(offset + 4), config.u16(offset + 6), config.u16(offset + 8)];
  return `${text}\t\tDpcCap:\tIntMsgNum ${capability & 0x1f}, ${marks(capability, { RPExt: 5, PoisonedTLP: 6, SwTrigger: 7 })} RP PIO Log ${field(capability, 8, 4)}, DL_ActiveErr${sign(bit(capability, 12))}\n`
    + `\t\tDpcCtl:\tTrigger:${hex(control & 3, 1)} ${marks(control, { Cmpl: 2, INT: 3, ErrCor: 4, PoisonedTLP: 5, SwTrigger: 6, DL_ActiveErr: 7 })}\n`
    + `\t\tDpcSta:\tTrigger${sign(bit(status, 0))} Reason:${hex(field(status, 1, 2), 2)} INT${sign(bit(status, 3))} RPBusy${sign(bit(status, 4))} TriggerExt:${hex(field(status, 5, 2), 2)} RP PIO ErrPtr:${hex(field(status, 8, 5), 2)}\n`
    + `\t\tSource:\t${hex(config.u16(offset + 10), 4)}\n`;
};
