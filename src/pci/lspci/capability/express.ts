// The PCI Express capability: what kind of function, and its device registers; link, slot and root in their own files.
// Source: PCIe Base 6.0, 7.5.3.
import { bit, type BitNames, field } from '../../bit-names.ts';
import type { ConfigImage } from '../../config-image.ts';
import type { CapabilityContext } from '../context.ts';
import { marks, named, sign } from '../text.ts';
import { link2Lines, linkLines } from './express-link.ts';
import { powerLimitWatts, rootLines, slotLines } from './express-slot.ts';
import { device2Lines } from './express-device2.ts';
import { PCIE_TYPE } from './pcie-type.ts';

function typeName(type: number, slot: boolean): string {
  switch (type) {
    case PCIE_TYPE.ENDPOINT: return 'Endpoint';
    case PCIE_TYPE.LEGACY_ENDPOINT: return 'Legacy Endpoint';
    case PCIE_TYPE.ROOT_PORT: return `Root Port (Slot${sign(slot)})`;
    case PCIE_TYPE.UPSTREAM_PORT: return 'Upstream Port';
    case PCIE_TYPE.DOWNSTREAM_PORT: return `Downstream Port (Slot${sign(slot)})`;
    case PCIE_TYPE.PCIE_TO_PCI: return 'PCI-Express to PCI/PCI-X Bridge';
    case PCIE_TYPE.PCI_TO_PCIE: return `PCI/PCI-X to PCI-Express Bridge (Slot${sign(slot)})`;
    case PCIE_TYPE.INTEGRATED_ENDPOINT: return 'Root Complex Integrated Endpoint';
    case PCIE_TYPE.EVENT_COLLECTOR: return 'Root Complex Event Collector';
    default: return `Unknown type ${type}`;
  }
}

export function expressText(context: CapabilityContext, offset: number): string {
  const { config, verbosity } = context;
  const flags = config.u16(offset + 2);
  const [version, type] = [flags & 0xf, field(flags, 4, 4)];
  // Only ports that can have a slot have these registers.
  const slot = bit(flags, 8) && ([PCIE_TYPE.ROOT_PORT, PCIE_TYPE.DOWNSTREAM_PORT, PCIE_TYPE.PCI_TO_PCIE] as readonly number[]).includes(type);
  let text = `Express ${verbosity > 1 ? `(v${version}) ` : ''}${typeName(type, bit(flags, 8))}, IntMsgNum ${field(flags, 9, 5)}\n`;
  if (verbosity < 2) return text;
  const root = type === PCIE_TYPE.ROOT_PORT || type === PCIE_TYPE.EVENT_COLLECTOR;
  // What of the capability has to be readable depends on what the function is.
  const sizeBytes = root ? 0x24 : slot ? 0x1c : 0x14;
  if (!config.has(offset + 4, sizeBytes - 4)) return text;
  const hasLink = type !== PCIE_TYPE.INTEGRATED_ENDPOINT && type !== PCIE_TYPE.EVENT_COLLECTOR;
  text += deviceLines(config, offset, type);
  if (hasLink) text += linkLines(config, offset, type);
  if (slot) text += slotLines(config, offset);
  if (root) text += rootLines(config, offset);
  if (version < 2 || !config.has(offset + 0x24, 16)) return text;
  text += device2Lines(config, offset, type);
  if (hasLink) text += link2Lines(context, offset, type);
  return text;
}

const L0S_LATENCY = ['<64ns', '<128ns', '<256ns', '<512ns', '<1us', '<2us', '<4us', 'unlimited'];
const L1_LATENCY = ['<1us', '<2us', '<4us', '<8us', '<16us', '<32us', '<64us', 'unlimited'];
const ERROR_ENABLES: BitNames = { CorrErr: 0, NonFatalErr: 1, FatalErr: 2, UnsupReq: 3 };
const DEVICE_CONTROL: BitNames = { RlxdOrd: 4, ExtTag: 8, PhantFunc: 9, AuxPwr: 10, NoSnoop: 11 };
const DEVICE_STATUS: BitNames = { CorrErr: 0, NonFatalErr: 1, FatalErr: 2, UnsupReq: 3, AuxPwr: 4, TransPend: 5 };

function deviceLines(config: ConfigImage, offset: number, type: number): string {
  const capabilities = config.u32(offset + 4);
  const control = config.u16(offset + 8);
  const status = config.u16(offset + 0xa);
  const endpoint = type === PCIE_TYPE.ENDPOINT || type === PCIE_TYPE.LEGACY_ENDPOINT;
  // Told by the slot's message, to those that sit in one.
  const limited = type === PCIE_TYPE.ENDPOINT || type === PCIE_TYPE.UPSTREAM_PORT || type === PCIE_TYPE.PCIE_TO_PCI;
  let text = `\t\tDevCap:\tMaxPayload ${128 << (capabilities & 7)} bytes, PhantFunc ${(1 << field(capabilities, 3, 2)) - 1}`;
  if (endpoint) text += `, Latency L0s ${named(L0S_LATENCY, field(capabilities, 6, 3))}, L1 ${named(L1_LATENCY, field(capabilities, 9, 3))}`;
  text += `\n\t\t\tExtTag${sign(bit(capabilities, 5))}`;
  if (endpoint || limited) text += ` ${marks(capabilities, { AttnBtn: 12, AttnInd: 13, PwrInd: 14 })}`;
  text += ` RBE${sign(bit(capabilities, 15))}`;
  if (endpoint || type === PCIE_TYPE.INTEGRATED_ENDPOINT) text += ` FLReset${sign(bit(capabilities, 28))}`;
  if (limited) text += ` SlotPowerLimit ${powerLimitWatts(field(capabilities, 18, 8), field(capabilities, 26, 2))}`;
  text += ` TEE-IO${sign(bit(capabilities, 30))}\n`;
  text += `\t\tDevCtl:\t${marks(control, ERROR_ENABLES)}\n\t\t\t${marks(control, DEVICE_CONTROL)}`;
  if (type === PCIE_TYPE.PCIE_TO_PCI) text += ` BrConfRtry${sign(bit(control, 15))}`;
  if ((endpoint || type === PCIE_TYPE.INTEGRATED_ENDPOINT) && bit(capabilities, 28)) text += ` FLReset${sign(bit(control, 15))}`;
  text += `\n\t\t\tMaxPayload ${128 << field(control, 5, 3)} bytes, MaxReadReq ${128 << field(control, 12, 3)} bytes\n`;
  return `${text}\t\tDevSta:\t${marks(status, DEVICE_STATUS)}\n`;
}
