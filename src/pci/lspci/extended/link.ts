// Power, latency, time and margins on a link: LTR, L1 PM substates, PTM, secondary PCI Express, lane margining.
// Source: PCIe Base 6.0, 7.8.2, 7.8.3, 7.9.15, 7.7.3, 7.7.8.
import { bit, type BitNames, field } from '../../bit-names.ts';
import { type CapabilityText, inDetail } from '../context.ts';
import { marks, sign } from '../text.ts';

/** Value (10 bits) and scale (3): 32 to the scale nanoseconds. */
function scaledNanoseconds(register: number, scaleAt: number): bigint {
  // Scales 6 and 7 are reserved; lspci shifts by them modulo 32.
  return BigInt(field(register, 0, 10)) << BigInt((5 * field(register, scaleAt, 3)) % 32);
}

export const latencyTolerance: CapabilityText = (context, offset) => {
  const { config } = context;
  const text = 'Latency Tolerance Reporting\n';
  if (!inDetail(context, offset + 4, 4)) return text;
  return `${text}\t\tMax snoop latency: ${scaledNanoseconds(config.u16(offset + 4), 10)}ns\n\t\tMax no snoop latency: ${scaledNanoseconds(config.u16(offset + 6), 10)}ns\n`;
};

const SUBSTATES: BitNames = { 'PCI-PM_L1.2': 0, 'PCI-PM_L1.1': 1, 'ASPM_L1.2': 2, 'ASPM_L1.1': 3 };
/** Microseconds of a unit of T_POWER_ON; 3 is reserved. */
const POWER_ON_UNIT_US = [2, 10, 100];

function powerOn(value: number, scale: number): string {
  const unit = POWER_ON_UNIT_US[scale];
  return unit === undefined ? '<error>' : `${value * unit}us`;
}

export const l1Substates: CapabilityText = (context, offset) => {
  const { config } = context;
  let text = 'L1 PM Substates\n';
  if (!inDetail(context, offset + 4, 12)) return text;
  const [capability, control, control2] = [config.u32(offset + 4), config.u32(offset + 8), config.u32(offset + 12)];
  text += `\t\tL1SubCap: ${marks(capability, { ...SUBSTATES, L1_PM_Substates: 4 })}\n`;
  const timed = bit(capability, 0) || bit(capability, 2);
  if (timed) text += `\t\t\t  PortCommonModeRestoreTime=${field(capability, 8, 8)}us PortTPowerOnTime=${powerOn(field(capability, 19, 5), field(capability, 16, 2))}\n`;
  text += `\t\tL1SubCtl1: ${marks(control, SUBSTATES)}\n`;
  if (timed) {
    const scale = field(control, 29, 3);
    text += `\t\t\t   T_CommonMode=${field(control, 8, 8)}us`;
    if (bit(capability, 2)) text += ` LTR1.2_Threshold=${scale > 5 ? '<error>' : `${BigInt(field(control, 16, 10)) * 32n ** BigInt(scale)}ns`}`;
    text += '\n';
  }
  text += '\t\tL1SubCtl2:';
  if (timed) text += ` T_PwrOn=${powerOn(field(control2, 3, 5), field(control2, 0, 2))}`;
  return `${text}\n`;
};

function granularity(value: number): string {
  return value === 0xff ? 'Greater than 254ns' : value === 0 ? 'Unknown' : `${value}ns`;
}

export const precisionTime: CapabilityText = (context, offset) => {
  const { config } = context;
  const text = 'Precision Time Measurement\n';
  if (!inDetail(context, offset + 4, 8)) return text;
  const [capability, control] = [config.u32(offset + 4), config.u32(offset + 8)];
  const clock = field(capability, 8, 8);
  return `${text}\t\tPTMCap: ${marks(capability, { Requester: 0, Responder: 1, Root: 2 })}\n`
    + `\t\tPTMClockGranularity: ${clock === 0 ? 'Unimplemented' : granularity(clock)}\n`
    + `\t\tPTMControl: ${marks(control, { Enabled: 0, RootSelected: 1 })}\n`
    + `\t\tPTMEffectiveGranularity: ${granularity(field(control, 8, 8))}\n`;
};

export const secondaryPcie: CapabilityText = (context, offset) => {
  const { config } = context;
  const text = 'Secondary PCI Express\n';
  if (!inDetail(context, offset + 4, 8)) return text;
  const control = config.u32(offset + 4);
  const errors = config.u32(offset + 8);
  const lanes = Array.from({ length: 16 }, (_, lane) => lane).filter((lane) => bit(errors, lane));
  return `${text}\t\tLnkCtl3: LnkEquIntrruptEn${sign(bit(control, 1))} PerformEqu${sign(bit(control, 0))}\n`
    + `\t\tLaneErrStat: ${lanes.length === 0 ? '0' : `LaneErr at lane: ${lanes.join(' ')}`}\n`;
};

export const laneMargining: CapabilityText = (context, offset) => {
  const { config } = context;
  const text = 'Lane Margining at the Receiver\n';
  if (!inDetail(context, offset + 4, 4)) return text;
  return `${text}\t\tPortCap: ${marks(config.u16(offset + 4), { 'Uses Driver': 0 })}\n\t\tPortSta: ${marks(config.u16(offset + 6), { MargReady: 0, MargSoftReady: 1 })}\n`;
};
