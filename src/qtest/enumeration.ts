// What firmware does with a PCI hierarchy: find the functions, number the buses, size the BARs, and place
// them with the bridges' windows around them. Source: PCI Local Bus 3.0, 6.1 and 6.2.5; PCI-to-PCI Bridge 1.2,
// 3.2.5. Not here: SR-IOV, resizable BARs, bridges with a 32-bit prefetchable window (QEMU has none).
import { barOffset, sizeBars, type Bar } from '../pci/bar.ts';
import { COMMAND } from '../pci/config-space.ts';
import { readPcieCapability } from '../pci/pcie.ts';
import type { PciAccess } from '../pci/access.ts';
import type { AddressRange } from './address-range.ts';
import type { ConfigMechanism, PciAddress } from './config-mechanism.ts';

export interface PciNode {
  readonly address: PciAddress;
  readonly vendorId: number;
  readonly deviceId: number;
  /** With their sizes; their addresses are those of the last placement. */
  readonly bars: readonly Bar[];
  /** 0 when there is none. */
  readonly romBytes: bigint;
  /** Undefined for an endpoint. */
  readonly bridge: BridgeNode | undefined;
}

export interface BridgeNode {
  readonly secondary: number;
  /** A PCIe port: it has slot 0 only. */
  readonly isPort: boolean;
  readonly below: PciNode[];
}

/** The three kinds of addresses that are routed apart. */
export interface AddressSpaces {
  readonly io: AddressRange;
  /** Under 4 GiB: what a bridge's memory window reaches. */
  readonly memory: AddressRange;
  /** Over 4 GiB, for 64-bit prefetchable BARs. */
  readonly prefetchable: AddressRange;
}
type Space = keyof AddressSpaces;
const SPACES = ['io', 'memory', 'prefetchable'] as const;

/** A function's config space alone. */
export function configAccess(config: ConfigMechanism, address: PciAddress): Pick<PciAccess, 'configRead' | 'configWrite'> {
  return {
    configRead: (offset, width) => config.read(address, offset, width),
    configWrite: (offset, width, value) => config.write(address, offset, width, value),
  };
}

export class Enumeration {
  readonly #config: ConfigMechanism;
  readonly #spaces: AddressSpaces;
  readonly #root: PciNode[] = [];
  #nextBus = 1;

  constructor(config: ConfigMechanism, spaces: AddressSpaces) {
    this.#config = config;
    this.#spaces = spaces;
  }

  /** Every function, a bridge before what is behind it. */
  get functions(): PciNode[] {
    const flat = (nodes: readonly PciNode[]): PciNode[] => nodes.flatMap((node) => [node, ...flat(node.bridge?.below ?? [])]);
    return flat(this.#root);
  }

  /** Find, number, size and place everything, and turn decoding and bus mastering on. */
  async enumerate(): Promise<void> {
    this.#root.push(...await this.#scan(0, 32, []));
    await this.#place(this.#root);
  }

  /** Look again behind a port of bus 0, or on bus 0 itself; what is new there is placed and returned. */
  async rescan(port: PciNode | undefined): Promise<PciNode[]> {
    const known = port?.bridge?.below ?? this.#root;
    const found = await this.#scan(port?.bridge?.secondary ?? 0, port?.bridge?.isPort === true ? 1 : 32, known);
    known.push(...found);
    if (found.length > 0) await this.#place(port === undefined ? found : [port]);
    return found;
  }

  /** The function is gone: it is forgotten. Its addresses may be given to others. */
  forget(node: PciNode): void {
    for (const nodes of [this.#root, ...this.functions.map(({ bridge }) => bridge?.below ?? [])]) {
      const at = nodes.indexOf(node);
      if (at < 0) continue;
      nodes.splice(at, 1);
      if (nodes !== this.#root) continue;
      for (const space of SPACES) for (const { base, sizeBytes } of this.#given.get(node)?.[space] ?? []) this.#spaces[space].release(base, sizeBytes);
      this.#given.delete(node);
    }
  }

  readonly #given = new Map<PciNode, Record<Space, { base: bigint; sizeBytes: bigint }[]>>();

  async #scan(bus: number, slots: number, known: readonly PciNode[]): Promise<PciNode[]> {
    const found: PciNode[] = [];
    for (let slot = 0; slot < slots; slot += 1) {
      for (let fn = 0, functions = 1; fn < functions; fn += 1) {
        const address = { bus, slot, function: fn };
        const id = await this.#config.read(address, 0, 4);
        if ((id & 0xffff) === 0xffff) continue;
        const headerType = await this.#config.read(address, 0x0e, 1);
        if (fn === 0 && (headerType & 0x80) !== 0) functions = 8;
        if (known.some((one) => one.address.slot === slot && one.address.function === fn)) continue;
        found.push(await this.#node(address, id, headerType & 0x7f));
      }
    }
    return found;
  }

  async #node(address: PciAddress, id: number, type: number): Promise<PciNode> {
    const access = configAccess(this.#config, address);
    const bars = await sizeBars(access, type === 1 ? 2 : 6);
    const romBytes = await sizeRom(access, romOffset(type === 1));
    const bridge = type === 1 ? await this.#number(address) : undefined;
    return { address, vendorId: id & 0xffff, deviceId: id >>> 16, bars, romBytes, bridge };
  }

  /** Numbers the bus behind a bridge, and those behind that (PCI-to-PCI Bridge 1.2, 3.2.5.3). */
  async #number(address: PciAddress): Promise<BridgeNode> {
    const secondary = this.#nextBus++;
    const write = (offset: number, value: number): Promise<void> => this.#config.write(address, offset, 1, value);
    await write(0x18, address.bus);
    await write(0x19, secondary);
    await write(0x1a, 0xff);
    const type = (await readPcieCapability(configAccess(this.#config, address)))?.deviceType;
    const isPort = type === 'root-port' || type === 'downstream-port';
    const below = await this.#scan(secondary, isPort ? 1 : 32, []);
    await write(0x1a, this.#nextBus - 1);
    return { secondary, isPort, below };
  }

  async #place(nodes: readonly PciNode[]): Promise<void> {
    for (const node of nodes) {
      const given = this.#given.get(node) ?? { io: [], memory: [], prefetchable: [] };
      this.#given.set(node, given);
      for (const space of SPACES) {
        for (const { base, sizeBytes } of given[space].splice(0)) this.#spaces[space].release(base, sizeBytes);
        for (const block of this.#blocks(node, space)) {
          const base = this.#spaces[space].allocate(block.sizeBytes, block.alignment);
          given[space].push({ base, sizeBytes: block.sizeBytes });
          await block.place(base);
        }
      }
      await this.#enable(node);
    }
  }

  async #enable({ address, bridge }: PciNode): Promise<void> {
    const command = await this.#config.read(address, 0x04, 2);
    await this.#config.write(address, 0x04, 2, command | COMMAND.IO | COMMAND.MEMORY | COMMAND.BUS_MASTER);
    for (const one of bridge?.below ?? []) await this.#enable(one);
  }

  /** What of a function wants addresses of this space: its BARs, its ROM, and the window to what is behind it. */
  #blocks(node: PciNode, space: Space): Block[] {
    const { address, bars, romBytes, bridge } = node;
    const write = (offset: number, value: bigint): Promise<void> => this.#config.write(address, offset, 4, Number(value & 0xffffffffn));
    const blocks: Block[] = bars.filter((bar) => spaceOf(bar) === space).map(({ index, kind, sizeBytes }) => ({
      sizeBytes, alignment: sizeBytes,
      place: async (base) => {
        await write(barOffset(index), base);
        if (kind === 'mem64') await write(barOffset(index) + 4, base >> 32n);
      },
    }));
    if (space === 'memory' && romBytes > 0n) {
      blocks.push({ sizeBytes: romBytes, alignment: romBytes, place: (base) => write(romOffset(bridge !== undefined), base) });
    }
    if (bridge !== undefined) blocks.push(this.#window(address, space, bridge.below.flatMap((one) => this.#blocks(one, space))));
    return blocks.filter(({ sizeBytes }) => sizeBytes > 0n);
  }

  #window(address: PciAddress, space: Space, inner: readonly Block[]): Block {
    const granule = space === 'io' ? 0x1000n : 0x100000n;
    const sorted = inner.toSorted((a, b) => (a.alignment < b.alignment ? 1 : -1));
    const alignment = sorted.reduce((most, one) => (one.alignment > most ? one.alignment : most), granule);
    let end = 0n;
    const offsets = sorted.map((one) => {
      const at = (end + one.alignment - 1n) & -one.alignment;
      end = at + one.sizeBytes;
      return at;
    });
    const sizeBytes = (end + granule - 1n) & -granule;
    return {
      sizeBytes, alignment,
      place: async (base) => {
        await this.#openWindow(address, space, base, base + sizeBytes - 1n);
        for (const [i, one] of sorted.entries()) await one.place(base + (offsets[i] ?? 0n));
      },
    };
  }

  async #openWindow(address: PciAddress, space: Space, base: bigint, limit: bigint): Promise<void> {
    const write = (offset: number, width: 1 | 2 | 4, value: bigint): Promise<void> => this.#config.write(address, offset, width, Number(value));
    if (space === 'io') {
      await write(0x1c, 1, (base >> 8n) & 0xf0n);
      await write(0x1d, 1, (limit >> 8n) & 0xf0n);
    } else if (space === 'memory') {
      await write(0x20, 2, (base >> 16n) & 0xfff0n);
      await write(0x22, 2, (limit >> 16n) & 0xfff0n);
    } else {
      await write(0x28, 4, base >> 32n);
      await write(0x2c, 4, limit >> 32n);
      await write(0x24, 2, (base >> 16n) & 0xfff0n);
      await write(0x26, 2, (limit >> 16n) & 0xfff0n);
    }
  }
}

interface Block {
  readonly sizeBytes: bigint;
  readonly alignment: bigint;
  place(base: bigint): Promise<void>;
}

function spaceOf(bar: Bar): Space {
  return bar.kind === 'io' ? 'io' : bar.kind === 'mem64' && bar.prefetchable ? 'prefetchable' : 'memory';
}

/** The expansion ROM's register of a type 0 or a type 1 header. */
export function romOffset(isBridge: boolean): number {
  return isBridge ? 0x38 : 0x30;
}

/** The ROM's size by writing ones to its address bits, its enable bit off (PCI 3.0, 6.2.5.2); 0 when there is none. */
async function sizeRom(access: Pick<PciAccess, 'configRead' | 'configWrite'>, offset: number): Promise<bigint> {
  const saved = await access.configRead(offset, 4);
  await access.configWrite(offset, 4, 0xfffff800);
  const mask = BigInt((await access.configRead(offset, 4) & 0xfffff800) >>> 0);
  await access.configWrite(offset, 4, saved);
  return mask & -mask;
}
