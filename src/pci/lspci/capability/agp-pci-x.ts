// AGP and PCI-X, which no PCIe device has and QEMU's chipset devices of old may. Source: AGP 3.0, 5.5; PCI-X 2.0, 7.2 and 8.6.2.
import { bit, type BitNames, field } from '../../bit-names.ts';
import { type CapabilityText, inDetail } from '../context.ts';
import { hex, marks, named, sign } from '../text.ts';

function rates(value: number, agp3: boolean): string {
  const shown = [0, 1, 2].filter((number) => bit(value, number)).map((number) => `x${2 ** (number + (agp3 ? 2 : 0))}`);
  return shown.length === 0 ? '<none>' : shown.join(',');
}

export const agp: CapabilityText = (context, offset) => {
  const { config } = context;
  const version = config.u8(offset + 2);
  const text = `AGP version ${hex(version >> 4, 1)}.${hex(version & 0xf, 1)}\n`;
  if (!inDetail(context, offset + 4, 8)) return text;
  const [status, command] = [config.u32(offset + 4), config.u32(offset + 8)];
  const agp3 = version >= 0x30 && bit(status, 3);
  return `${text}\t\tStatus: RQ=${(status >>> 24) + 1} Iso${sign(bit(status, 16))} ArqSz=${field(status, 13, 3)} Cal=${field(status, 10, 3)}`
    + ` ${marks(status, { 'SBA': 9, 'ITACoh': 8, 'GART64': 7, 'HTrans': 6, '64bit': 5, 'FW': 4, 'AGP3': 3 })} Rate=${rates(status, agp3)}\n`
    + `\t\tCommand: RQ=${(command >>> 24) + 1} ArqSz=${field(command, 13, 3)} Cal=${field(command, 10, 3)} ${marks(command, { 'SBA': 9, 'AGP': 8, 'GART64': 7, '64bit': 5, 'FW': 4 })} Rate=${rates(command, agp3)}\n`;
};

const SPLITS = [1, 2, 3, 4, 8, 12, 16, 32];
const BRIDGE_CLOCKS = ['conv', '66MHz', '100MHz', '133MHz', '?4', '?5', '?6', '?7'];
const WIDTH_AND_SPLITS: BitNames = { '64bit': 0, '133MHz': 1, 'SCD': 2, 'USC': 3 };
const BRIDGE_STATUS: BitNames = { ...WIDTH_AND_SPLITS, SCO: 4, SRD: 5 };

function place(status: number): string {
  return `Dev=${hex(field(status, 8, 8), 2)}:${hex(field(status, 3, 5), 2)}.${status & 7}`;
}

/** The layout goes by the header's type. */
export function pciX(headerType: number): CapabilityText {
  return headerType === 1 ? bridge : endpoint;
}

const endpoint: CapabilityText = (context, offset) => {
  const { config } = context;
  const text = 'PCI-X non-bridge device\n';
  if (!inDetail(context, offset + 4, 4)) return text;
  const [command, status] = [config.u16(offset + 2), config.u32(offset + 4)];
  return `${text}\t\tCommand: ${marks(command, { DPERE: 0, ERO: 1 })} RBC=${512 << field(command, 2, 2)} OST=${SPLITS[field(command, 4, 3)] ?? 0}\n`
    + `\t\tStatus: ${place(status)} ${marks(status >>> 16, WIDTH_AND_SPLITS)} DC=${bit(status, 20) ? 'bridge' : 'simple'} DMMRBC=${512 << field(status, 21, 2)}`
    + ` DMOST=${SPLITS[field(status, 23, 3)] ?? 0} DMCRS=${8 << field(status, 26, 3)} ${marks(status, { 'RSCEM': 29, '266MHz': 30, '533MHz': 31 })}\n`;
};

const bridge: CapabilityText = (context, offset) => {
  const { config } = context;
  const text = 'PCI-X bridge device\n';
  if (!inDetail(context, offset + 4, 12)) return text;
  const [secondary, status] = [config.u16(offset + 2), config.u32(offset + 4)];
  const splits = (at: number): string => `Capacity=${config.u16(at)} CommitmentLimit=${config.u16(at + 2)}`;
  return `${text}\t\tSecondary Status: ${marks(secondary, BRIDGE_STATUS)} Freq=${named(BRIDGE_CLOCKS, field(secondary, 6, 3))}\n`
    + `\t\tStatus: ${place(status)} ${marks(status >>> 16, BRIDGE_STATUS)}\n`
    + `\t\tUpstream: ${splits(offset + 8)}\n\t\tDownstream: ${splits(offset + 12)}\n`;
};
