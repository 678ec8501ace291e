// Link registers of the PCI Express capability, both sets. Source: PCIe Base 6.0, 7.5.3.6 to 7.5.3.8 and 7.5.3.18 to 20.
import { bit, type BitNames, field } from '../../bit-names.ts';
import type { ConfigImage } from '../../config-image.ts';
import type { CapabilityContext } from '../context.ts';
import { marks, named, sign } from '../text.ts';
import { PCIE_TYPE } from './pcie-type.ts';

const SPEEDS = ['unknown', '2.5GT/s', '5GT/s', '8GT/s', '16GT/s', '32GT/s', '64GT/s'];
const ASPM_SUPPORT = ['not supported', 'L0s', 'L1', 'L0s L1'];
const ASPM_CONTROL = ['Disabled', 'L0s Enabled', 'L1 Enabled', 'L0s L1 Enabled'];
const EXIT_L0S = ['<64ns', '<128ns', '<256ns', '<512ns', '<1us', '<2us', '<4us', 'unlimited'];
const EXIT_L1 = ['<1us', '<2us', '<4us', '<8us', '<16us', '<32us', '<64us', 'unlimited'];
const LINK_CAPABILITIES: BitNames = { ClockPM: 18, Surprise: 19, LLActRep: 20, BwNot: 21, ASPMOptComp: 22 };
const LINK_CONTROL: BitNames = { ExtSynch: 7, ClockPM: 8, AutWidDis: 9, BWInt: 10, AutBWInt: 11 };
const LINK_STATUS: BitNames = { TrErr: 10, Train: 11, SlotClk: 12, DLActive: 13, BWMgmt: 14, ABWMgmt: 15 };

/** Ports whose link is below them. */
function leadsDownstream(type: number): boolean {
  return type === PCIE_TYPE.ROOT_PORT || type === PCIE_TYPE.DOWNSTREAM_PORT || type === PCIE_TYPE.PCI_TO_PCIE;
}

function speed(value: number): string {
  return named(SPEEDS, value);
}

/** What is above the link says nothing of a slower partner. */
function compared(value: number, most: number, downstream: boolean): string {
  return value > most ? ' (overdriven)' : value < most && !downstream ? ' (downgraded)' : '';
}

export function linkLines(config: ConfigImage, offset: number, type: number): string {
  const capabilities = config.u32(offset + 0xc);
  const control = config.u16(offset + 0x10);
  const status = config.u16(offset + 0x12);
  const [topSpeed, topWidth, aspm] = [capabilities & 0xf, field(capabilities, 4, 6), field(capabilities, 10, 2)];
  let text = `\t\tLnkCap:\tPort #${capabilities >>> 24}, Speed ${speed(topSpeed)}, Width x${topWidth}, ASPM ${named(ASPM_SUPPORT, aspm)}`;
  if (aspm !== 0) {
    const l0s = bit(aspm, 0) ? `L0s ${named(EXIT_L0S, field(capabilities, 12, 3))}` : '';
    const l1 = bit(aspm, 1) ? `L1 ${named(EXIT_L1, field(capabilities, 15, 3))}` : '';
    text += `, Exit Latency ${[l0s, l1].filter((one) => one !== '').join(', ')}`;
  }
  text += `\n\t\t\t${marks(capabilities, LINK_CAPABILITIES)}\n\t\tLnkCtl:\tASPM ${named(ASPM_CONTROL, control & 3)};`;
  const completes = type === PCIE_TYPE.ROOT_PORT || type === PCIE_TYPE.ENDPOINT || type === PCIE_TYPE.LEGACY_ENDPOINT || type === PCIE_TYPE.PCIE_TO_PCI;
  if (completes) text += ` RCB ${bit(control, 3) ? 128 : 64} bytes,`;
  text += ` LnkDisable${sign(bit(control, 4))} CommClk${sign(bit(control, 6))}\n\t\t\t${marks(control, LINK_CONTROL)}\n`;
  const downstream = leadsDownstream(type);
  const [nowSpeed, nowWidth] = [status & 0xf, field(status, 4, 6)];
  return `${text}\t\tLnkSta:\tSpeed ${speed(nowSpeed)}${compared(nowSpeed, topSpeed, downstream)}, Width x${nowWidth}${compared(nowWidth, topWidth, downstream)}\n\t\t\t${marks(status, LINK_STATUS)}\n`;
}

const MARGIN = ['Normal Operating Range', '800-1200mV(full-swing)/400-700mV(half-swing)', ...Array<string>(4).fill('200-400mV(full-swing)/100-200mV(half-swing)')];
const DE_EMPHASIS = ['-6dB', '-3.5dB'];
const PRESETS = [
  '-6dB de-emphasis, 0dB preshoot', '-3.5dB de-emphasis, 0dB preshoot', '-4.4dB de-emphasis, 0dB preshoot', '-2.5dB de-emphasis, 0dB preshoot',
  '0dB de-emphasis, 0dB preshoot', '0dB de-emphasis, 1.9dB preshoot', '0dB de-emphasis, 2.5dB preshoot', '-6.0dB de-emphasis, 3.5dB preshoot',
  '-3.5dB de-emphasis, 3.5dB preshoot', '0dB de-emphasis, 3.5dB preshoot',
];
const CROSSLINK = ['unsupported', 'Upstream Port', 'Downstream Port', 'incomplete'];
const DOWNSTREAM_COMPONENT = [
  'Link Down - Not Determined', 'Link Down - Not Present', 'Link Down - Present', undefined, 'Link Up - Present', 'Link Up - Present and DRS Received',
];

/** Link Control 2's speed: nothing chosen is the lowest. */
function targetSpeed(value: number): string {
  return named(['2.5GT/s', ...SPEEDS.slice(1)], value, 'Unknown');
}

/** Supported Link Speeds Vector by its highest bit; bit 7 is reserved. */
function speedRange(capabilities: number): string {
  const top = [7, 6, 5, 4, 3, 2, 1].find((number) => bit(capabilities, number));
  if (top === undefined) return 'Unknown';
  return top === 7 ? 'RsvdP' : top === 1 ? '2.5GT/s' : `2.5-${SPEEDS[top] ?? ''}`;
}

/** Link Capabilities 2 and Link Control 2; the first was reserved before PCIe 3.0, and is zero there. */
function link2Control(capabilities: number, control: number, type: number): string {
  let text = '';
  if (capabilities !== 0) {
    text += `\t\tLnkCap2: Supported Link Speeds: ${speedRange(capabilities)}, Crosslink${sign(bit(capabilities, 8))} ${marks(capabilities, { 'Retimer': 23, '2Retimers': 24, 'DRS': 31 })}\n`;
  }
  text += `\t\tLnkCtl2: Target Link Speed: ${targetSpeed(control & 0xf)}, ${marks(control, { EnterCompliance: 4, SpeedDis: 5 })}`;
  if (type === PCIE_TYPE.DOWNSTREAM_PORT) text += `, Selectable De-emphasis: ${named(DE_EMPHASIS, field(control, 6, 1))}`;
  return `${text}\n\t\t\t Transmit Margin: ${named(MARGIN, field(control, 7, 3), 'Unknown')}, ${marks(control, { EnterModifiedCompliance: 10, ComplianceSOS: 11 })}`
    + `\n\t\t\t Compliance Preset/De-emphasis: ${named(PRESETS, field(control, 12, 4), 'Unknown')}\n`;
}

const LINK_STATUS_2: readonly BitNames[] = [
  { EqualizationComplete: 1, EqualizationPhase1: 2 }, { EqualizationPhase2: 3, EqualizationPhase3: 4, LinkEqualizationRequest: 5 }, { 'Retimer': 6, '2Retimers': 7 },
];

export function link2Lines({ config, first }: CapabilityContext, offset: number, type: number): string {
  const capabilities = config.u32(offset + 0x2c);
  const status = config.u16(offset + 0x32);
  const endpoint = type === PCIE_TYPE.ENDPOINT || type === PCIE_TYPE.LEGACY_ENDPOINT;
  // A link's other functions have no say in its control.
  let text = endpoint && !first ? '' : link2Control(capabilities, config.u16(offset + 0x30), type);
  const lines = LINK_STATUS_2.map((names) => marks(status, names)).join('\n\t\t\t ');
  text += `\t\tLnkSta2: Current De-emphasis Level: ${named(DE_EMPHASIS, status & 1)}, ${lines} CrosslinkRes: ${named(CROSSLINK, field(status, 8, 2))}`;
  if (leadsDownstream(type) && bit(capabilities, 31)) {
    text += `, DRS${sign(bit(status, 15))}\n\t\t\t DownstreamComp: ${named(DOWNSTREAM_COMPONENT, field(status, 12, 3), 'Reserved')}`;
  }
  return `${text}\n`;
}
