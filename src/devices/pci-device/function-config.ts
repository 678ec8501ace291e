// The config space of a PCI function of ours: header, BARs and MSI-X, and which of their bits a guest can write.
// Source: PCI Local Bus 3.0, 6.1, 6.2.5, 6.8. Sizes and addresses of BARs are answered by QEMU, from what these say.
import { UsageError } from '../../errors.ts';
import { CAPABILITY_ID } from '../../pci/capabilities.ts';
import { barOffset, type BarKind } from '../../pci/bar.ts';
import { COMMAND, COMMON_HEADER, CONFIG_BYTES, STATUS, TYPE_0_HEADER } from '../../pci/config-space.ts';
import { msixPbaBytes, msixTableBytes } from '../../pci/msix.ts';

/** Where a table lies: in which BAR, and how far into it (a multiple of 8). */
export interface BarPlace {
  readonly bar: number;
  readonly offset: number;
}

export interface BarShape {
  readonly kind: BarKind;
  /** A power of two: of memory at least a page, of ports at least 4. */
  readonly sizeBytes: number;
  readonly prefetchable?: boolean;
}

export interface FunctionShape {
  readonly vendorId: number;
  readonly deviceId: number;
  /** 24 bits: base class, subclass, programming interface. Default 0xff0000, unassigned. */
  readonly classCode?: number;
  readonly revisionId?: number;
  readonly subsystemVendorId?: number;
  readonly subsystemId?: number;
  /** By index, 0 to 5; a 64-bit one takes the next index too. */
  readonly bars?: Readonly<Record<number, BarShape>>;
  /** 1 to 2048 vectors; table and PBA may lie in the same BAR or in different ones. */
  readonly msix?: { readonly vectors: number; readonly table: BarPlace; readonly pba: BarPlace };
}

const MSIX_OFFSET = 0x40;
const WRITABLE_COMMAND = COMMAND.IO | COMMAND.MEMORY | COMMAND.BUS_MASTER | COMMAND.PARITY_ERROR_RESPONSE | COMMAND.SERR | COMMAND.INTX_DISABLE;
const MSIX_WRITABLE = 0xc000;

export class FunctionConfig {
  readonly sizeBytes = CONFIG_BYTES;
  readonly #reset: Uint8Array;
  readonly #now: Uint8Array;
  /** The bits that a guest can write. */
  readonly #writable = new Uint8Array(CONFIG_BYTES);

  /** UsageError for a function that PCI has not. */
  constructor(shape: FunctionShape) {
    const bytes = new Uint8Array(CONFIG_BYTES);
    const classCode = shape.classCode ?? 0xff0000;
    const subsystem = { subsystemVendorId: shape.subsystemVendorId ?? shape.vendorId, subsystemId: shape.subsystemId ?? shape.deviceId };
    const capabilities = shape.msix !== undefined;
    merge(bytes, TYPE_0_HEADER.encode(subsystem));
    merge(bytes, COMMON_HEADER.encode({
      vendorId: shape.vendorId, deviceId: shape.deviceId, revisionId: shape.revisionId ?? 0,
      programmingInterface: classCode & 0xff, subclass: (classCode >> 8) & 0xff, baseClass: classCode >> 16,
      status: capabilities ? STATUS.CAP_LIST : 0, capabilitiesPointer: capabilities ? MSIX_OFFSET : 0,
    }));
    this.#allow(0x04, 2, WRITABLE_COMMAND);
    this.#allow(0x0c, 2, 0xffff);
    this.#allow(0x3c, 1, 0xff);
    this.#addBars(bytes, shape);
    if (shape.msix !== undefined) this.#addMsix(new DataView(bytes.buffer), shape.msix);
    this.#reset = bytes;
    this.#now = bytes.slice();
  }

  read(offset: number, into: Uint8Array): void {
    into.set(this.#now.subarray(offset, offset + into.length));
  }

  write(offset: number, bytes: Uint8Array): void {
    bytes.forEach((byte, i) => {
      const writable = this.#writable[offset + i] as number;
      this.#now[offset + i] = ((this.#now[offset + i] as number) & ~writable) | (byte & writable);
    });
  }

  reset(): void {
    this.#now.set(this.#reset);
  }

  #allow(offset: number, count: number, bits: number): void {
    for (let i = 0; i < count; i += 1) this.#writable[offset + i] = (bits >>> (8 * i)) & 0xff;
  }

  #addBars(bytes: Uint8Array, { bars = {}, msix }: FunctionShape): void {
    const view = new DataView(bytes.buffer);
    const taken = new Set<number>();
    for (const [key, { kind, sizeBytes, prefetchable = false }] of Object.entries(bars)) {
      const index = Number(key);
      const least = kind === 'io' ? 4 : 4096;
      const most = kind === 'io' ? 256 : kind === 'mem32' ? 2 ** 31 : 2 ** 40;
      if (!Number.isInteger(Math.log2(sizeBytes)) || sizeBytes < least || sizeBytes > most) {
        throw new UsageError(`BAR${index} of ${sizeBytes} bytes`, { hint: `a BAR of kind ${kind} is a power of two from ${least} to ${most}` });
      }
      for (const one of kind === 'mem64' ? [index, index + 1] : [index]) {
        if (taken.has(one)) throw new UsageError(`BAR${one} is the upper half of a 64-bit one, or given twice`);
        barOffset(one);
        taken.add(one);
      }
      view.setUint32(barOffset(index), kind === 'io' ? 1 : (kind === 'mem64' ? 4 : 0) | (prefetchable ? 8 : 0), true);
    }
    if (msix === undefined) return;
    const { table, pba } = msix;
    const size = { tableSize: msix.vectors };
    const [tableBytes, pbaBytes] = [msixTableBytes(size), msixPbaBytes(size)];
    checkPlace('the MSI-X table', table, tableBytes, bars);
    checkPlace('the PBA', pba, pbaBytes, bars);
    if (table.bar === pba.bar && table.offset < pba.offset + pbaBytes && pba.offset < table.offset + tableBytes) throw new UsageError('the PBA lies in the MSI-X table');
  }

  /** MSI-X is enabled, and its Function Mask: as the guest wrote them. */
  get msixControl(): { readonly enabled: boolean; readonly functionMasked: boolean } {
    const control = this.#now[MSIX_OFFSET + 3] as number;
    return { enabled: (control & 0x80) !== 0, functionMasked: (control & 0x40) !== 0 };
  }

  #addMsix(view: DataView, { vectors, table, pba }: NonNullable<FunctionShape['msix']>): void {
    if (!Number.isInteger(vectors) || vectors < 1 || vectors > 2048) throw new UsageError(`MSI-X with ${vectors} vectors`, { hint: 'it has 1 to 2048' });
    view.setUint16(MSIX_OFFSET, CAPABILITY_ID.MSI_X, true);
    view.setUint16(MSIX_OFFSET + 2, vectors - 1, true);
    view.setUint32(MSIX_OFFSET + 4, table.offset | table.bar, true);
    view.setUint32(MSIX_OFFSET + 8, pba.offset | pba.bar, true);
    this.#allow(MSIX_OFFSET + 2, 2, MSIX_WRITABLE);
  }
}

function merge(target: Uint8Array, source: Uint8Array): void {
  source.forEach((byte, i) => { target[i] = (target[i] as number) | byte; });
}

function checkPlace(what: string, { bar, offset }: BarPlace, sizeBytes: number, bars: Readonly<Record<number, BarShape>>): void {
  const shape = bars[bar];
  if (shape === undefined || shape.kind === 'io') throw new UsageError(`${what} in BAR${bar}, which is ${shape === undefined ? 'none of this function' : 'a BAR of ports'}`);
  if (offset % 8 !== 0 || offset < 0 || offset + sizeBytes > shape.sizeBytes) {
    throw new UsageError(`${what} at 0x${offset.toString(16)} of BAR${bar}`, { hint: `it takes ${sizeBytes} bytes from a multiple of 8 inside the BAR's ${shape.sizeBytes}` });
  }
}
