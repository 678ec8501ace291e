// Multicast: groups, and where what is sent to them goes. Source: PCIe Base 6.0, 7.9.11.
import { bit, field } from '../../bit-names.ts';
import { PCIE_TYPE } from '../capability/pcie-type.ts';
import { type CapabilityText, inDetail } from '../context.ts';
import { hex, sign } from '../text.ts';

export const multicast: CapabilityText = (context, offset) => {
  const { config, pcieType } = context;
  let text = 'Multicast\n';
  if (!inDetail(context, offset + 4, 0x2c)) return text;
  const [capability, control] = [config.u16(offset + 4), config.u16(offset + 6)];
  const isPort = pcieType === PCIE_TYPE.ROOT_PORT || pcieType === PCIE_TYPE.UPSTREAM_PORT || pcieType === PCIE_TYPE.DOWNSTREAM_PORT;
  const hasWindow = pcieType === PCIE_TYPE.ENDPOINT || pcieType === PCIE_TYPE.INTEGRATED_ENDPOINT;
  // Sizes over 2 GiB wrap, as lspci's do.
  const window = field(capability, 8, 6);
  text += `\t\tMcastCap: MaxGroups ${(capability & 0x3f) + 1}${hasWindow ? `, WindowSz ${window} (${1 << window} bytes)` : ''}`;
  // lspci ends this line for ports only.
  if (isPort) text += `, ECRCRegen${sign(bit(capability, 15))}\n`;
  const base = config.u64(offset + 8);
  const vector = (at: number): string => hex(config.u64(offset + at), 16);
  text += `\t\tMcastCtl: NumGroups ${(control & 0x3f) + 1}, Enable${sign(bit(control, 15))}\n`
    + `\t\tMcastBAR: IndexPos ${base & 0x3fn}, BaseAddr ${hex(base & ~0xfffn, 16)}\n`
    + `\t\tMcastReceiveVec:      ${vector(0x10)}\n\t\tMcastBlockAllVec:     ${vector(0x18)}\n\t\tMcastBlockUntransVec: ${vector(0x20)}\n`;
  if (hasWindow) return text;
  const overlay = config.u64(offset + 0x28);
  const size = Number(overlay & 0x3fn);
  return `${text}\t\tMcastOverlayBAR: OverlaySize ${size} ${size < 6 ? '(disabled)' : `(${1 << size} bytes)`}, BaseAddr ${hex(overlay & ~0x3fn, 16)}\n`;
};
