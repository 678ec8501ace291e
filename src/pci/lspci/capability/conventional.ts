// The short capabilities of conventional PCI. Source: PCI PM 1.2, 3.2; PCI Local Bus 3.0, 6.8; PCIe Base 5.0, 7.9.21;
// AHCI 1.3.1, 1.2; EHCI 1.0, C.3.
import type { BitNames } from '../../bit-names.ts';
import { bit, field } from '../../bit-names.ts';
import { type CapabilityContext, type CapabilityText, inDetail } from '../context.ts';
import { hex, marks, named, sign } from '../text.ts';

const PM_FLAGS: BitNames = { PMEClk: 3, DSI: 5, D1: 9, D2: 10 };
const PME_FROM: BitNames = { D0: 11, D1: 12, D2: 13, D3hot: 14, D3cold: 15 };
const AUX_CURRENT_MA = [0, 55, 100, 160, 220, 270, 320, 375];

export const powerManagement: CapabilityText = (context, offset) => {
  const { config } = context;
  const capabilities = config.u16(offset + 2);
  let text = `Power Management version ${capabilities & 7}\n`;
  if (context.verbosity < 2) return text;
  const from = marks(capabilities, PME_FROM).replaceAll(' ', ',');
  text += `\t\tFlags: ${marks(capabilities, PM_FLAGS)} AuxCurrent=${AUX_CURRENT_MA[(capabilities >> 6) & 7] ?? 0}mA PME(${from})\n`;
  if (!config.has(offset + 4, 4)) return text;
  const status = config.u16(offset + 4);
  const bridge = config.u8(offset + 6);
  text += `\t\tStatus: D${status & 3} NoSoftRst${sign(bit(status, 3))} PME-Enable${sign(bit(status, 8))} DSel=${(status >> 9) & 0xf} DScale=${(status >> 13) & 3} PME${sign(bit(status, 15))}\n`;
  if (bridge !== 0) text += `\t\tBridge: PM${sign(bit(bridge, 7))} B3${sign(!bit(bridge, 6))}\n`;
  return text;
};

export const slotIdentification: CapabilityText = ({ config }, offset) => {
  const [slots, chassis] = [config.u8(offset + 2), config.u8(offset + 3)];
  return `Slot ID: ${slots & 0x1f} slots, First${sign(bit(slots, 5))}, chassis ${hex(chassis, 2)}\n`;
};

export const msi: CapabilityText = (context, offset) => {
  const { config } = context;
  const control = config.u16(offset + 2);
  const [wide, maskable] = [bit(control, 7), bit(control, 8)];
  let text = `MSI: Enable${sign(bit(control, 0))} Count=${1 << ((control >> 4) & 7)}/${1 << ((control >> 1) & 7)} Maskable${sign(maskable)} 64bit${sign(wide)}\n`;
  const data = offset + (wide ? 12 : 8);
  if (!inDetail(context, offset + 4, wide ? 10 : 6)) return text;
  text += `\t\tAddress: ${wide ? hex(config.u32(offset + 8), 8) : ''}${hex(config.u32(offset + 4), 8)}  Data: ${hex(config.u16(data), 4)}\n`;
  if (maskable && config.has(data + 4, 8)) text += `\t\tMasking: ${hex(config.u32(data + 4), 8)}  Pending: ${hex(config.u32(data + 8), 8)}\n`;
  return text;
};

export const msix: CapabilityText = (context, offset) => {
  const { config } = context;
  const control = config.u16(offset + 2);
  const text = `MSI-X: Enable${sign(bit(control, 15))} Count=${(control & 0x7ff) + 1} Masked${sign(bit(control, 14))}\n`;
  if (!inDetail(context, offset + 4, 8)) return text;
  const place = (at: number): string => `BAR=${config.u32(at) & 7} offset=${hex((config.u32(at) & ~7) >>> 0, 8)}`;
  return `${text}\t\tVector table: ${place(offset + 4)}\n\t\tPBA: ${place(offset + 8)}\n`;
};

/** The subsystem of a bridge. */
export const bridgeSubsystem: CapabilityText = ({ config, names, vendorId, deviceId }, offset) => {
  if (!config.has(offset + 4, 4)) return '';
  return `Subsystem: ${names.subsystem(vendorId, deviceId, config.u16(offset + 4), config.u16(offset + 6))}\n`;
};

export const debugPort: CapabilityText = ({ config }, offset) => {
  const place = config.u16(offset + 2);
  return `Debug port: BAR=${place >> 13} offset=${hex(place & 0x1fff, 4)}\n`;
};

export const sata: CapabilityText = (context, offset) => {
  const { config } = context;
  const revision = config.u16(offset + 2);
  const text = `SATA HBA v${(revision >> 4) & 0xf}.${revision & 0xf}`;
  if (!inDetail(context, offset + 4, 4)) return `${text}\n`;
  const place = config.u32(offset + 4);
  const [bar, at] = [place & 0xf, field(place, 4, 20)];
  if (bar >= 4 && bar <= 9) return `${text} BAR${bar - 4} Offset=${hex(at, 8)}\n`;
  return `${text}${bar === 0xf ? ' InCfgSpace' : ` BAR??${bar}`}\n`;
};

export const advancedFeatures: CapabilityText = (context, offset) => {
  const { config } = context;
  const text = 'PCI Advanced Features\n';
  if (!inDetail(context, offset + 3, 3)) return text;
  const [features, control, status] = [config.u8(offset + 3), config.u8(offset + 4), config.u8(offset + 5)];
  return `${text}\t\tAFCap: TP${sign(bit(features, 0))} FLR${sign(bit(features, 1))}\n\t\tAFCtrl: FLR${sign(bit(control, 0))}\n\t\tAFStatus: TP${sign(bit(status, 0))}\n`;
};

/** A capability that has a name and no text. */
export function nameOnly(name: string): CapabilityText {
  return () => `${name}\n`;
}

export const vitalProductData: CapabilityText = (context: CapabilityContext) => (
  context.verbosity < 2 ? 'Vital Product Data\n' : 'Vital Product Data\n\t\tNot readable\n'
);

const VIRTIO_TYPES = ['<unknown>', 'CommonCfg', 'Notify', 'ISR', 'DeviceCfg'];

/** Vendor-specific; virtio's (1af4) with their place in the BAR. Source: virtio 1.2, 4.1.4. */
export const vendorSpecific: CapabilityText = (context, offset) => {
  const { config, vendorId, deviceId } = context;
  const length = config.u8(offset + 2);
  const isVirtio = vendorId === 0x1af4 && deviceId >= 0x1000 && deviceId <= 0x107f;
  if (!isVirtio || length < 16 || !config.has(offset, length)) return `Vendor Specific Information: Len=${hex(length, 2)} <?>\n`;
  const type = config.u8(offset + 3);
  const text = `Vendor Specific Information: VirtIO: ${named(VIRTIO_TYPES, type, '<unknown>')}\n`;
  if (context.verbosity < 2) return text;
  const [bar, at, size] = [config.u8(offset + 4), config.u32(offset + 8), config.u32(offset + 12)];
  const multiplier = type === 2 && length >= 20 ? ` multiplier=${hex(config.u32(offset + 16), 8)}` : '';
  return `${text}\t\tBAR=${bar} offset=${hex(at, 8)} size=${hex(size, 8)}${multiplier}\n`;
};
