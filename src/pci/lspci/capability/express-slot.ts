// Slot and root registers of the PCI Express capability. Source: PCIe Base 6.0, 7.5.3.9 to 7.5.3.14.
import { bit, type BitNames, field } from '../../bit-names.ts';
import type { ConfigImage } from '../../config-image.ts';
import { hex, marks, named, sign } from '../text.ts';

const SLOT_CAPABILITIES: BitNames = { AttnBtn: 0, PwrCtrl: 1, MRL: 2, AttnInd: 3, PwrInd: 4, HotPlug: 6, Surprise: 5 };
const SLOT_ENABLES: BitNames = { AttnBtn: 0, PwrFlt: 1, MRL: 2, PresDet: 3, CmdCplt: 4, HPIrq: 5, LinkChg: 12 };
const SLOT_STATUS: BitNames = { AttnBtn: 0, PowerFlt: 1, MRL: 5, CmdCplt: 4, PresDet: 6, Interlock: 7 };
const SLOT_CHANGED: BitNames = { MRL: 2, PresDet: 3, LinkState: 8 };
const INDICATOR = ['Unknown', 'On', 'Blink', 'Off'];
const ROOT_CONTROL: BitNames = { 'ErrCorrectable': 0, 'ErrNon-Fatal': 1, 'ErrFatal': 2, 'PMEIntEna': 3, 'CRSVisible': 4 };
const SCALES = [1, 0.1, 0.01, 0.001];
/** Values from 0xf0 on of a scale of one stand for these (7.5.3.9). */
const HIGH_LIMITS_WATTS = [250, 275, 300, 325, 350, 375, 400, 425, 450, 475, 500, 525, 550, 575, 600];

/** A slot power limit: `25W`, `>600W`. */
export function powerLimitWatts(value: number, scale: number): string {
  if (scale === 0 && value >= 0xf0) {
    const limit = HIGH_LIMITS_WATTS[value - 0xf0];
    return limit === undefined ? '>600W' : `${limit}W`;
  }
  return `${Number((value * (SCALES[scale] ?? 0)).toPrecision(6))}W`;
}

export function slotLines(config: ConfigImage, offset: number): string {
  const capabilities = config.u32(offset + 0x14);
  const control = config.u16(offset + 0x18);
  const status = config.u16(offset + 0x1a);
  return `\t\tSltCap:\t${marks(capabilities, SLOT_CAPABILITIES)}\n`
    + `\t\t\tSlot #${capabilities >>> 19}, PowerLimit ${powerLimitWatts(field(capabilities, 7, 8), field(capabilities, 15, 2))}; Interlock${sign(bit(capabilities, 17))} NoCompl${sign(bit(capabilities, 18))}\n`
    + `\t\tSltCtl:\tEnable: ${marks(control, SLOT_ENABLES)}\n`
    + `\t\t\tControl: AttnInd ${named(INDICATOR, field(control, 6, 2))}, PwrInd ${named(INDICATOR, field(control, 8, 2))}, Power${sign(bit(control, 10))} Interlock${sign(bit(control, 11))}\n`
    + `\t\tSltSta:\tStatus: ${marks(status, SLOT_STATUS)}\n\t\t\tChanged: ${marks(status, SLOT_CHANGED)}\n`;
}

export function rootLines(config: ConfigImage, offset: number): string {
  const status = config.u32(offset + 0x20);
  return `\t\tRootCap: CRSVisible${sign(bit(config.u16(offset + 0x1e), 0))}\n`
    + `\t\tRootCtl: ${marks(config.u16(offset + 0x1c), ROOT_CONTROL)}\n`
    + `\t\tRootSta: PME ReqID ${hex(status & 0xffff, 4)}, PMEStatus${sign(bit(status, 16))} PMEPending${sign(bit(status, 17))}\n`;
}
