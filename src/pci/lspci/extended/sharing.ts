// Who may talk to whom, and functions that are many: ACS, ARI, ATS, PRI, PASID, SR-IOV.
// Source: PCIe Base 6.0, 7.7.11, 7.8.8, 10.5.1, 10.5.2, 7.8.9, 9.3.3.
import { bit, type BitNames, field } from '../../bit-names.ts';
import { type CapabilityText, inDetail } from '../context.ts';
import { hex, marks, sign } from '../text.ts';

const ACS: BitNames = { SrcValid: 0, TransBlk: 1, ReqRedir: 2, CmpltRedir: 3, UpstreamFwd: 4, EgressCtrl: 5, DirectTrans: 6 };

export const accessControl: CapabilityText = (context, offset) => {
  const { config } = context;
  const text = 'Access Control Services\n';
  if (!inDetail(context, offset + 4, 4)) return text;
  return `${text}\t\tACSCap:\t${marks(config.u16(offset + 4), ACS)}\n\t\tACSCtl:\t${marks(config.u16(offset + 6), ACS)}\n`;
};

export const alternativeRouting: CapabilityText = (context, offset) => {
  const { config } = context;
  const text = 'Alternative Routing-ID Interpretation (ARI)\n';
  if (!inDetail(context, offset + 4, 4)) return text;
  const [capability, control] = [config.u16(offset + 4), config.u16(offset + 6)];
  const bits: BitNames = { MFVC: 0, ACS: 1 };
  return `${text}\t\tARICap:\t${marks(capability, bits)}, Next Function: ${field(capability, 8, 8)}\n`
    + `\t\tARICtl:\t${marks(control, bits)}, Function Group: ${field(control, 4, 3)}\n`;
};

export const addressTranslation: CapabilityText = (context, offset) => {
  const { config } = context;
  const text = 'Address Translation Service (ATS)\n';
  if (!inDetail(context, offset + 4, 4)) return text;
  const control = config.u16(offset + 6);
  return `${text}\t\tATSCap:\tInvalidate Queue Depth: ${hex(config.u16(offset + 4) & 0x1f, 2)}\n`
    + `\t\tATSCtl:\tEnable${sign(bit(control, 15))}, Smallest Translation Unit: ${hex(control & 0x1f, 2)}\n`;
};

export const pageRequest: CapabilityText = (context, offset) => {
  const { config } = context;
  const text = 'Page Request Interface (PRI)\n';
  if (!inDetail(context, offset + 4, 12)) return text;
  const [control, status] = [config.u16(offset + 4), config.u16(offset + 6)];
  return `${text}\t\tPRICtl: ${marks(control, { Enable: 0, Reset: 1 })}\n\t\tPRISta: ${marks(status, { RF: 0, UPRGI: 1, Stopped: 8, PASID: 15 })}\n`
    + `\t\tPage Request Capacity: ${hex(config.u32(offset + 8), 8)}, Page Request Allocation: ${hex(config.u32(offset + 12), 8)}\n`;
};

export const processAddressSpace: CapabilityText = (context, offset) => {
  const { config } = context;
  const text = 'Process Address Space ID (PASID)\n';
  if (!inDetail(context, offset + 4, 4)) return text;
  const [capability, control] = [config.u16(offset + 4), config.u16(offset + 6)];
  return `${text}\t\tPASIDCap: ${marks(capability, { Exec: 1, Priv: 2 })}, Max PASID Width: ${hex(field(capability, 8, 5), 2)}\n`
    + `\t\tPASIDCtl: ${marks(control, { Enable: 0, Exec: 1, Priv: 2 })}\n`;
};

const VF_BARS = 6;

export const singleRootIov: CapabilityText = (context, offset) => {
  const { config } = context;
  let text = 'Single Root I/O Virtualization (SR-IOV)\n';
  if (!inDetail(context, offset + 4, 0x3c)) return text;
  const [capability, control] = [config.u32(offset + 4), config.u16(offset + 8)];
  text += `\t\tIOVCap:\t${marks(capability, { 'Migration': 0, '10BitTagReq': 2 })} IntMsgNum ${capability >>> 21}\n`
    + `\t\tIOVCtl:\t${marks(control, { 'Enable': 0, 'Migration': 1, 'Interrupt': 2, 'MSE': 3, 'ARIHierarchy': 4, '10BitTagReq': 5 })}\n`
    + `\t\tIOVSta:\tMigration${sign(bit(config.u16(offset + 0xa), 0))}\n`
    + `\t\tInitial VFs: ${config.u16(offset + 0xc)}, Total VFs: ${config.u16(offset + 0xe)}, Number of VFs: ${config.u16(offset + 0x10)}, Function Dependency Link: ${hex(config.u8(offset + 0x12), 2)}\n`
    + `\t\tVF offset: ${config.u16(offset + 0x14)}, stride: ${config.u16(offset + 0x16)}, Device ID: ${hex(config.u16(offset + 0x1a), 4)}\n`
    + `\t\tSupported Page Size: ${hex(config.u32(offset + 0x1c), 8)}, System Page Size: ${hex(config.u32(offset + 0x20), 8)}\n`;
  for (let index = 0; index < VF_BARS; index++) {
    const low = config.u32(offset + 0x24 + 4 * index);
    const wide = (low & 6) === 4;
    const bits = (low & 6) === 0 ? '32' : '64';
    const shown = index;
    let high = '';
    // lspci takes the word that follows for the upper half of the last one too.
    if (wide) high = hex(config.u32(offset + 0x24 + 4 * ++index), 8);
    if (low === 0 || low === 0xffffffff) continue;
    text += `\t\tRegion ${shown}: Memory at ${high}${hex((low & ~15) >>> 0, 8)} (${bits}-bit, ${bit(low, 3) ? '' : 'non-'}prefetchable)\n`;
  }
  const migration = config.u32(offset + 0x3c);
  return `${text}\t\tVF Migration: offset: ${hex((migration & ~7) >>> 0, 8)}, BIR: ${hex(migration & 7, 1)}\n`;
};
