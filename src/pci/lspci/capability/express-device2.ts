// The second set of device registers of the PCI Express capability. Source: PCIe Base 6.0, 7.5.3.15 and 7.5.3.16.
import { bit, type BitNames, field } from '../../bit-names.ts';
import type { ConfigImage } from '../../config-image.ts';
import { marks, named, sign } from '../text.ts';
import { PCIE_TYPE } from './pcie-type.ts';

const TIMEOUT_RANGES: Readonly<Record<number, string>> = {
  0: 'Not Supported', 1: 'Range A', 2: 'Range B', 3: 'Range AB', 6: 'Range BC', 7: 'Range ABC', 14: 'Range BCD', 15: 'Range ABCD',
};
const TIMEOUT_VALUES: Readonly<Record<number, string>> = {
  0: '50us to 50ms', 1: '50us to 100us', 2: '1ms to 10ms', 5: '16ms to 55ms', 6: '65ms to 210ms', 9: '260ms to 900ms', 10: '1s to 3.5s', 13: '4s to 13s', 14: '17s to 64s',
};
const OBFF_SUPPORT = ['Not Supported', 'Via message', 'Via WAKE#', 'Via message/WAKE#'];
const OBFF_CONTROL = ['Disabled', 'Via message A', 'Via message B', 'Via WAKE#'];
const POWER_REDUCTION = ['Not Supported', 'Dev Specific', 'Form Factor Dev Specific', 'Reserved'];
const LN_SYSTEM_CLS = ['Not Supported', '64byte cachelines', '128byte cachelines', 'Reserved'];
const TPH_COMPLETER = ['TPHComp- ExtTPHComp-', 'TPHComp+ ExtTPHComp-', '', 'TPHComp+ ExtTPHComp+'];
const CAPABILITIES: BitNames = { TimeoutDis: 4, NROPrPrP: 10, LTR: 11 };

function hasMemoryBar(config: ConfigImage): boolean {
  const count = (config.u8(0x0e) & 0x7f) === 0 ? 6 : 2;
  return Array.from({ length: count }, (_, index) => config.u32(0x10 + 4 * index)).some((register) => register !== 0 && register !== 0xffffffff && (register & 1) === 0);
}

export function device2Lines(config: ConfigImage, offset: number, type: number): string {
  const capabilities = config.u32(offset + 0x24);
  const control = config.u16(offset + 0x28);
  const root = type === PCIE_TYPE.ROOT_PORT;
  const endpoint = type === PCIE_TYPE.ENDPOINT || type === PCIE_TYPE.LEGACY_ENDPOINT;
  const downstream = root || type === PCIE_TYPE.DOWNSTREAM_PORT;
  const routes = root || type === PCIE_TYPE.UPSTREAM_PORT || type === PCIE_TYPE.DOWNSTREAM_PORT;
  let text = `\t\tDevCap2: Completion Timeout: ${TIMEOUT_RANGES[capabilities & 0xf] ?? 'Unknown'}, ${marks(capabilities, CAPABILITIES)}\n`
    + `\t\t\t 10BitTagComp${sign(bit(capabilities, 16))} 10BitTagReq${sign(bit(capabilities, 17))} OBFF ${named(OBFF_SUPPORT, field(capabilities, 18, 2))},`
    + ` ExtFmt${sign(bit(capabilities, 20))} EETLPPrefix${sign(bit(capabilities, 21))}`;
  if (bit(capabilities, 21)) text += `, MaxEETLPPrefixes ${field(capabilities, 22, 2) === 0 ? 4 : field(capabilities, 22, 2)}`;
  text += `\n\t\t\t EmergencyPowerReduction ${named(POWER_REDUCTION, field(capabilities, 24, 2))}, EmergencyPowerReductionInit${sign(bit(capabilities, 26))}\n`
    + `\t\t\t FRS${sign(bit(capabilities, 31))}`;
  if (root) text += ` LN System CLS ${named(LN_SYSTEM_CLS, field(capabilities, 14, 2))},`;
  if (root || type === PCIE_TYPE.ENDPOINT) text += ` ${named(TPH_COMPLETER, field(capabilities, 12, 2))}`;
  if (downstream) text += ` ARIFwd${sign(bit(capabilities, 5))}`;
  text += '\n';
  // What completes them is a memory BAR's.
  const completes = root || hasMemoryBar(config);
  if (routes || completes) {
    text += '\t\t\t AtomicOpsCap:';
    if (routes) text += ` Routing${sign(bit(capabilities, 6))}`;
    if (completes) text += ` ${marks(capabilities, { '32bit': 7, '64bit': 8, '128bitCAS': 9 })}`;
    text += '\n';
  }
  text += `\t\tDevCtl2: Completion Timeout: ${TIMEOUT_VALUES[control & 0xf] ?? 'Unknown'}, TimeoutDis${sign(bit(control, 4))}`;
  if (downstream) text += ` ARIFwd${sign(bit(control, 5))}`;
  text += '\n';
  if (routes || endpoint || type === PCIE_TYPE.INTEGRATED_ENDPOINT) {
    text += '\t\t\t AtomicOpsCtl:';
    if (root || endpoint || type === PCIE_TYPE.INTEGRATED_ENDPOINT) text += ` ReqEn${sign(bit(control, 6))}`;
    if (routes) text += ` EgressBlck${sign(bit(control, 7))}`;
    text += '\n';
  }
  return `${text}\t\t\t ${marks(control, { IDOReq: 8, IDOCompl: 9, LTR: 10, EmergencyPowerReductionReq: 11 })}\n`
    + `\t\t\t 10BitTagReq${sign(bit(control, 12))} OBFF ${named(OBFF_CONTROL, field(control, 13, 2))}, EETLPPrefixBlk${sign(bit(control, 15))}\n`;
}
