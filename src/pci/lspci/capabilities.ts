// The two lists of capabilities as text. A loop, a broken pointer and an id without a name are told and end nothing else.
// Source: PCI Local Bus 3.0, 6.7; PCIe Base 6.0, 7.6.
import { CONFIG_BYTES, CONFIG_HEADER_BYTES, EXTENDED_CONFIG_BYTES, STATUS } from '../config-space.ts';
import { CAPABILITY_ID } from '../capabilities.ts';
import {
  advancedFeatures, bridgeSubsystem, debugPort, msi, msix, nameOnly, powerManagement, sata, slotIdentification, vendorSpecific, vitalProductData,
} from './capability/conventional.ts';
import { agp, pciX } from './capability/agp-pci-x.ts';
import { enhancedAllocation } from './capability/enhanced-allocation.ts';
import { expressText } from './capability/express.ts';
import { hyperTransport } from './capability/hyper-transport.ts';
import { pcieTypeAt } from './capability/pcie-type.ts';
import type { CapabilityContext, CapabilityText } from './context.ts';
import { aer, downstreamPortContainment } from './extended/errors.ts';
import { dataObjectExchange, designatedVendorSpecific, resizableBar, serialNumber, tph, vendorSpecificExtended } from './extended/device.ts';
import { dataEncryption } from './extended/encryption.ts';
import { l1Substates, laneMargining, latencyTolerance, precisionTime, secondaryPcie } from './extended/link.ts';
import { multicast } from './extended/multicast.ts';
import { eventCollector, rootComplexLink } from './extended/root-complex.ts';
import { accessControl, addressTranslation, alternativeRouting, pageRequest, processAddressSpace, singleRootIov } from './extended/sharing.ts';
import { virtualChannel } from './extended/virtual-channel.ts';
import { hex } from './text.ts';

const TEXTS: Readonly<Record<number, CapabilityText>> = {
  0x00: nameOnly('Null'), 0x01: powerManagement, 0x02: agp, 0x03: vitalProductData, 0x04: slotIdentification, 0x05: msi,
  0x06: nameOnly('CompactPCI hot-swap <?>'), 0x08: hyperTransport, 0x09: vendorSpecific, 0x0a: debugPort,
  0x0b: nameOnly('CompactPCI central resource control <?>'), 0x0c: nameOnly('Hot-plug capable'), 0x0d: bridgeSubsystem,
  0x0e: nameOnly('AGP3 <?>'), 0x0f: nameOnly('Secure device <?>'), 0x10: expressText, 0x11: msix, 0x12: sata, 0x13: advancedFeatures,
};

const EXTENDED_TEXTS: Readonly<Record<number, CapabilityText>> = {
  0x00: nameOnly('Null'), 0x01: aer, 0x02: virtualChannel, 0x03: serialNumber, 0x04: nameOnly('Power Budgeting <?>'),
  0x05: rootComplexLink, 0x06: nameOnly('Root Complex Internal Link <?>'), 0x07: eventCollector,
  0x08: nameOnly('Multi-Function Virtual Channel <?>'), 0x09: virtualChannel, 0x0a: nameOnly('Root Complex Register Block <?>'),
  0x0b: vendorSpecificExtended, 0x0d: accessControl, 0x0e: alternativeRouting, 0x0f: addressTranslation, 0x10: singleRootIov,
  0x11: nameOnly('Multi-Root I/O Virtualization <?>'), 0x12: multicast, 0x13: pageRequest, 0x15: resizableBar('Physical'),
  0x16: nameOnly('Dynamic Power Allocation <?>'), 0x17: tph, 0x18: latencyTolerance, 0x19: secondaryPcie, 0x1a: nameOnly('Protocol Multiplexing <?>'),
  0x1b: processAddressSpace, 0x1c: nameOnly('LN Requester <?>'), 0x1d: downstreamPortContainment, 0x1e: l1Substates, 0x1f: precisionTime,
  0x20: nameOnly('PCI Express over M_PHY <?>'), 0x21: nameOnly('FRS Queueing <?>'), 0x22: nameOnly('Readiness Time Reporting <?>'),
  0x23: designatedVendorSpecific, 0x24: resizableBar('Virtual'), 0x25: nameOnly('Data Link Feature <?>'), 0x26: nameOnly('Physical Layer 16.0 GT/s <?>'),
  0x27: laneMargining, 0x28: nameOnly('Hierarchy ID <?>'), 0x29: nameOnly('Native PCIe Enclosure Management <?>'),
  0x2a: nameOnly('Physical Layer 32.0 GT/s <?>'), 0x2b: nameOnly('Alternate Protocol <?>'), 0x2e: dataObjectExchange, 0x30: dataEncryption,
};

/** Capabilities whose layout goes by the header's type. */
const TEXTS_BY_HEADER: Readonly<Record<number, (headerType: number) => CapabilityText>> = { 0x07: pciX, 0x14: enhancedAllocation };

/** Both lists, each capability with its lines. `pointer` is where the first list's is: 0x34, or CardBus' 0x14. */
export function capabilityLines(base: Omit<CapabilityContext, 'pcieType'>, headerType: number): string {
  const { config } = base;
  if ((config.u16(0x06) & STATUS.CAP_LIST) === 0) return '';
  let pcieType: number | undefined;
  let text = '';
  const seen = new Set<number>();
  for (let offset = config.u8(0x34) & ~3; offset !== 0; ) {
    text += '\tCapabilities: ';
    if (!config.has(offset, 4)) {
      text += '<access denied>\n';
      break;
    }
    const [id, next, flags] = [config.u8(offset), config.u8(offset + 1) & ~3, config.u16(offset + 2)];
    text += `[${hex(offset, 2)}] `;
    if (seen.has(offset) || id === 0xff) {
      text += seen.has(offset) ? '<chain looped>\n' : '<chain broken>\n';
      break;
    }
    seen.add(offset);
    if (id === CAPABILITY_ID.PCI_EXPRESS) pcieType = pcieTypeAt(config, offset);
    const render = TEXTS_BY_HEADER[id]?.(headerType) ?? TEXTS[id];
    text += render === undefined ? `Capability ID 0x${hex(id, 2)} [${hex(flags, 4)}]\n` : render({ ...base, pcieType }, offset);
    offset = next;
  }
  // Conventional PCI has no extended space to look into.
  return pcieType === undefined ? text : text + extendedLines({ ...base, pcieType });
}

function extendedLines(context: CapabilityContext): string {
  const { config, verbosity } = context;
  let text = '';
  const seen = new Set<number>();
  for (let offset = CONFIG_BYTES; offset >= CONFIG_HEADER_BYTES && offset + 4 <= EXTENDED_CONFIG_BYTES; ) {
    if (!config.has(offset, 4)) return text;
    const header = config.u32(offset);
    if (header === 0) return text;
    const [id, version, next] = [header & 0xffff, (header >>> 16) & 0xf, (header >>> 20) & ~3];
    text += `\tCapabilities: [${hex(offset, 3)}${verbosity > 1 ? ` v${version}` : ''}] `;
    if (seen.has(offset)) return `${text}<chain looped>\n`;
    seen.add(offset);
    text += EXTENDED_TEXTS[id]?.(context, offset) ?? `Extended Capability ID 0x${hex(id, 2)}\n`;
    offset = next;
  }
  return text;
}
