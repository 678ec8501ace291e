// A PCI function of this process's own: its config space, BARs and MSI-X are what a test says. QEMU's vfio-user-pci
// (since 10.1; tried on 11.1) shows it to the guest. Not here: INTx and MSI, PCIe capabilities, an option ROM.
import { join } from 'node:path';
import { EnvironmentError, UsageError } from '../../errors.ts';
import { msixPbaBytes } from '../../pci/msix.ts';
import type { Attachment, AttachSite, Device } from '../../qemu/attachment.ts';
import type { GuestMemory } from '../../virtio/guest-memory.ts';
import { REGION, VfioUserServer, type VfioRegion } from '../../vfio-user/index.ts';
import { FunctionConfig, type BarPlace, type BarShape, type FunctionShape } from './function-config.ts';
import { SparseMemory } from './sparse-memory.ts';

export type { BarPlace, BarShape };

/**
 * What became of a vector that was fired, as its device knows. Delivered: QEMU has it, which sends the message, or keeps it
 * while the entry is masked. Pending: Function Mask is set, and it is in the PBA. Lost: the guest has not enabled MSI-X.
 */
export type InterruptFate = 'delivered' | 'pending' | 'lost';

/** A BAR, and what answers in it; a BAR without `read` and `write` is memory: what was written reads back. */
export interface BarOptions extends BarShape {
  /** Fill `into`, of 1, 2, 4 or 8 bytes, from `offset` on. The guest's CPU stands still until this returns. */
  readonly read?: (offset: number, into: Uint8Array) => void;
  /** The guest's CPU does not wait for it in a BAR of memory (QEMU posts those writes): what it reads of the function next comes after them. */
  readonly write?: (offset: number, bytes: Uint8Array) => void;
}

export interface PciDeviceOptions extends FunctionShape {
  readonly bars?: Readonly<Record<number, BarOptions>>;
  /** The guest, or QEMU for it, resets the function; its config space is back at what it was. */
  readonly onReset?: () => void;
}

/** Its finalize takes the PBA's region out of a BAR that is gone by then (hw/vfio-user/pci.c, vfio_user_msix_teardown). */
const IMMOVABLE = 'QEMU 11.1 aborts when a vfio-user function with MSI-X is unplugged';

export class PciDevice implements Device {
  readonly kind = 'pci-device';
  readonly #options: PciDeviceOptions;
  readonly #config: FunctionConfig;
  readonly #fired: Uint32Array;
  readonly #pending = new Set<number>();
  #server: VfioUserServer | undefined;
  #watch: ((vector: number) => void) | undefined;

  constructor(options: PciDeviceOptions) {
    this.#options = options;
    this.#config = new FunctionConfig(options);
    this.#fired = new Uint32Array(options.msix?.vectors ?? 0);
  }

  /** Fire a vector once. UsageError when there is no such vector, or the device is not plugged. */
  fire(vector: number): InterruptFate {
    if (this.#fired[vector] === undefined) throw new UsageError(`pci-device: there is no vector ${vector}`, { hint: `it has ${this.#fired.length}` });
    const server = this.#plugged();
    this.#watch?.(vector);
    this.#fired[vector] += 1;
    const { enabled, functionMasked } = this.#config.msixControl;
    if (enabled && functionMasked) {
      this.#pending.add(vector);
      return 'pending';
    }
    return enabled && server.signal(vector) ? 'delivered' : 'lost';
  }

  /** The guest's memory, by the addresses that a driver gives its device. */
  get memory(): GuestMemory {
    return this.#plugged().memory;
  }

  async attach(site: AttachSite): Promise<Attachment> {
    if (this.#server !== undefined) throw new UsageError('this pci-device is plugged already', { hint: 'make another with pciDevice()' });
    if (site.qemu !== undefined && site.qemu.version.major < 11) {
      throw new EnvironmentError(`QEMU ${site.qemu.version.text} has no vfio-user-pci that pciDevice() was tried on`, { hint: "take a newer one: qemu: '11.1', or ROOTPORT_QEMU=11.1" });
    }
    const path = join(site.directory, `${site.id}.sock`);
    this.#config.reset();
    const server = VfioUserServer.listen({ path, onError: site.fail, log: site.log, function: { regions: this.#regions(), vectorCount: this.#fired.length, reset: () => this.#reset() } });
    this.#server = server;
    return {
      driver: 'vfio-user-pci',
      // A test may look at a register for as long as it likes: QEMU would give up after 5 s.
      properties: { socket: { type: 'unix', path }, 'x-msg-timeout': 0x7fffffff },
      chardevs: [],
      backEnd: () => undefined,
      ...(this.#fired.length === 0 ? {} : { immovable: IMMOVABLE }),
      witness: {
        unit: 'vector',
        fired: () => new Map([...this.#fired.entries()].filter(([, count]) => count > 0)),
        watch: (listener) => { this.#watch = listener; },
      },
      detach: async () => {
        server.close();
        if (this.#server === server) this.#server = undefined;
      },
    };
  }

  #regions(): (VfioRegion | undefined)[] {
    const regions: (VfioRegion | undefined)[] = [];
    for (const [index, bar] of Object.entries(this.#options.bars ?? {})) regions[Number(index)] = this.#bar(Number(index), bar);
    regions[REGION.CONFIG] = {
      sizeBytes: this.#config.sizeBytes,
      read: (offset, into) => this.#config.read(offset, into),
      write: (offset, bytes) => {
        this.#config.write(offset, bytes);
        this.#sendPending();
      },
    };
    return regions;
  }

  #bar(index: number, { sizeBytes, read, write }: BarOptions): VfioRegion {
    const memory = read === undefined && write === undefined ? new SparseMemory() : undefined;
    const pba = this.#options.msix?.pba.bar === index ? this.#options.msix.pba.offset : undefined;
    return {
      sizeBytes,
      read: (offset, into) => {
        if (memory !== undefined) memory.read(offset, into);
        else read?.(offset, into);
        if (pba !== undefined) this.#showPending(offset - pba, into);
      },
      write: (offset, bytes) => (memory === undefined ? write?.(offset, bytes) : memory.write(offset, bytes)),
    };
  }

  /**
   * QEMU's vfio-user-pci asks its server for the PBA (hw/vfio-user/pci.c, vfio_user_pba_read), and tells it of no entry's
   * mask: what QEMU keeps for a masked entry is in no PBA.
   */
  #showPending(start: number, into: Uint8Array): void {
    const pbaBytes = msixPbaBytes({ tableSize: this.#fired.length });
    for (let i = Math.max(0, -start); i < into.length && start + i < pbaBytes; i += 1) {
      let byte = 0;
      for (let bit = 0; bit < 8; bit += 1) if (this.#pending.has(8 * (start + i) + bit)) byte |= 1 << bit;
      into[i] = byte;
    }
  }

  /** What was fired under Function Mask goes out once when that is cleared; disabled, it is forgotten. */
  #sendPending(): void {
    const { enabled, functionMasked } = this.#config.msixControl;
    if (enabled && functionMasked) return;
    const waiting = [...this.#pending];
    this.#pending.clear();
    if (enabled) for (const vector of waiting) this.#server?.signal(vector);
  }

  #reset(): void {
    this.#config.reset();
    this.#pending.clear();
    this.#options.onReset?.();
  }

  #plugged(): VfioUserServer {
    if (this.#server === undefined) throw new UsageError('this pci-device is not plugged', { hint: 'await vm.plug(device) first, or give it to useBare' });
    return this.#server;
  }
}

/** UsageError for a function that PCI has not. */
export function pciDevice(options: PciDeviceOptions): PciDevice {
  return new PciDevice(options);
}
