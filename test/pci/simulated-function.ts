// A PCI function for tests: config space of a dump with BARs that behave as PCI 3.0, 6.2.5 says, and
// memory behind them. Every access is recorded.
import type { PciAccess } from '../../src/pci/access.ts';
import { checkConfigAccess } from '../../src/pci/config-space.ts';
import type { LspciDump, LspciRegion } from './lspci.ts';

export class SimulatedFunction implements PciAccess {
  readonly config: Uint8Array;
  readonly writes: string[] = [];
  readonly #memory = new Map<number, Uint8Array>();
  readonly #regions: readonly LspciRegion[];
  /** Rejects the access with this number, counted from 1. */
  failAt = 0;
  #accesses = 0;

  constructor({ config, regions }: Pick<LspciDump, 'config' | 'regions'>) {
    this.config = config.slice();
    this.#regions = regions;
    for (const { index, kind, sizeBytes } of regions) if (kind !== 'io') this.#memory.set(index, new Uint8Array(Math.min(Number(sizeBytes), 2 ** 16)));
  }

  memory(bar: number): Uint8Array {
    const memory = this.#memory.get(bar);
    if (memory === undefined) throw new Error(`BAR ${bar} has no memory`);
    return memory;
  }

  async configRead(offset: number, width: 1 | 2 | 4): Promise<number> {
    this.#count();
    checkConfigAccess(offset, width);
    let value = 0;
    for (let i = width - 1; i >= 0; i--) value = value * 256 + (this.config[offset + i] ?? 0xff);
    return Promise.resolve(value);
  }

  async configWrite(offset: number, width: 1 | 2 | 4, value: number): Promise<void> {
    this.#count();
    checkConfigAccess(offset, width);
    this.writes.push(`${offset.toString(16)}/${width}=${(value >>> 0).toString(16)}`);
    const barWrite = offset >= 0x10 && offset < 0x28;
    if (barWrite && width !== 4) throw new Error('BARs are written as words');
    if (barWrite && ((this.config[4] ?? 0) & 3) !== 0) throw new Error('a BAR is written while it decodes');
    const masked = barWrite ? this.#barValue((offset - 0x10) / 4, value >>> 0) : value;
    for (let i = 0; i < width; i++) this.config[offset + i] = Math.floor(masked / 2 ** (8 * i)) & 0xff;
    return Promise.resolve();
  }

  async memRead(bar: number, offset: number, width: 1 | 2 | 4 | 8): Promise<bigint> {
    this.#count();
    if (width !== 4) throw new Error('the MSI-X table is accessed in words');
    return Promise.resolve(BigInt(new DataView(this.memory(bar).buffer).getUint32(offset, true)));
  }

  async memWrite(bar: number, offset: number, width: 1 | 2 | 4 | 8, value: bigint): Promise<void> {
    this.#count();
    this.writes.push(`bar${bar}+${offset.toString(16)}/${width}=${value.toString(16)}`);
    new DataView(this.memory(bar).buffer).setUint32(offset, Number(value), true);
    return Promise.resolve();
  }

  ioRead(): Promise<number> {
    return Promise.reject(new Error('no I/O here'));
  }

  ioWrite(): Promise<void> {
    return Promise.reject(new Error('no I/O here'));
  }

  #barValue(slot: number, value: number): number {
    const low = this.#regions.find(({ index }) => index === slot);
    const high = this.#regions.find(({ index, kind }) => index === slot - 1 && kind === 'mem64');
    if (low !== undefined) {
      const flags = low.kind === 'io' ? 1 : (low.kind === 'mem64' ? 4 : 0) | (low.prefetchable ? 8 : 0);
      const address = BigInt(value) & ~(low.sizeBytes - 1n) & (low.kind === 'io' ? 0xfffffffcn : 0xfffffff0n);
      return Number(address) + flags;
    }
    if (high !== undefined) return Number(((BigInt(value) << 32n) & ~(high.sizeBytes - 1n)) >> 32n);
    return 0;
  }

  #count(): void {
    this.#accesses += 1;
    if (this.#accesses === this.failAt) throw new Error('the access failed');
  }
}
