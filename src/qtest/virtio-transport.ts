// A virtio device's structures over PCI, as a driver reaches them: directly in their BARs, or through the window
// that the PCI_CFG capability gives into the BARs. Source: virtio 1.2, 4.1.4 (4.1.4.9 for the window).
// The modern interface only. Not here: what a driver does with them (virtio-driver.ts).
import { ProtocolError, UsageError } from '../errors.ts';
import type { ConfigWidth, PciAccess } from '../pci/access.ts';
import { readBars } from '../pci/bar.ts';
import { readVirtioCapabilities, VIRTIO_PCI_CFG_TYPE, type VirtioCapability } from '../pci/virtio-capabilities.ts';

export type VirtioStructure = Exclude<keyof typeof VIRTIO_PCI_CFG_TYPE, 'PCI_CFG' | 'SHARED_MEMORY_CFG' | 'VENDOR_CFG'>;

export interface VirtioTransport {
  /** Of every structure that the device has. */
  readonly capabilities: readonly VirtioCapability[];
  /** The one that is used for this structure. */
  structure(name: VirtioStructure): VirtioCapability;
  read(structure: VirtioStructure, offset: number, width: ConfigWidth): Promise<number>;
  write(structure: VirtioStructure, offset: number, width: ConfigWidth, value: number): Promise<void>;
}

/** `through`: how the structures are reached. UsageError when the function has no virtio capabilities. */
export async function openVirtioTransport(access: PciAccess, through: 'bars' | 'pci-cfg' = 'bars'): Promise<VirtioTransport> {
  const capabilities = await readVirtioCapabilities(access);
  const io = new Set((await readBars(access)).filter(({ kind }) => kind === 'io').map(({ index }) => index));
  const find = (cfgType: number): VirtioCapability => {
    // A driver takes the first that it can use. QEMU's window finds a structure by its offset alone, whatever BAR is
    // named (hw/virtio/virtio-pci.c, virtio_address_space_lookup): one in I/O space would be another in memory.
    const found = capabilities.find((one) => one.cfgType === cfgType && (through === 'bars' || cfgType === VIRTIO_PCI_CFG_TYPE.PCI_CFG || !io.has(one.bar)));
    if (found === undefined) throw new UsageError(`the function has no virtio capability of type ${cfgType}`, { hint: 'a legacy device has none at all' });
    return found;
  };
  find(VIRTIO_PCI_CFG_TYPE.COMMON_CFG);
  const at = (name: VirtioStructure, offset: number, width: number): { bar: number; address: number } => {
    const { bar, structureOffset, lengthBytes } = find(VIRTIO_PCI_CFG_TYPE[name]);
    if (BigInt(offset + width) > lengthBytes) throw new ProtocolError(`virtio: ${name} has ${lengthBytes} bytes; ${width} at ${offset} asked for`);
    return { bar, address: Number(structureOffset) + offset };
  };
  const structure = (name: VirtioStructure): VirtioCapability => find(VIRTIO_PCI_CFG_TYPE[name]);
  if (through === 'bars') {
    return {
      capabilities, structure,
      async read(structure, offset, width) {
        const { bar, address } = at(structure, offset, width);
        return io.has(bar) ? access.ioRead(bar, address, width) : Number(await access.memRead(bar, address, width));
      },
      async write(structure, offset, width, value) {
        const { bar, address } = at(structure, offset, width);
        await (io.has(bar) ? access.ioWrite(bar, address, width, value) : access.memWrite(bar, address, width, BigInt(value)));
      },
    };
  }
  const window = find(VIRTIO_PCI_CFG_TYPE.PCI_CFG).offset;
  const select = async (structure: VirtioStructure, offset: number, width: number): Promise<void> => {
    const { bar, address } = at(structure, offset, width);
    await access.configWrite(window + 0x4, 1, bar);
    await access.configWrite(window + 0x8, 4, address);
    await access.configWrite(window + 0xc, 4, width);
  };
  return {
    capabilities, structure,
    async read(structure, offset, width) {
      await select(structure, offset, width);
      return access.configRead(window + 0x10, width);
    },
    async write(structure, offset, width, value) {
      await select(structure, offset, width);
      await access.configWrite(window + 0x10, width, value);
    },
  };
}
