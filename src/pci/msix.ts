// MSI-X: the capability, the vector table and the pending bits, through PciAccess.
// Source: PCI Local Bus 3.0, 6.8.2; PCIe Base 5.0, 7.7.2. Every table access is 32 bits wide, which
// every device must take. Not here: allocating vectors (the guest's kernel) and MSI (msi.ts).
import { layout, u32, u64 } from '../bytes/layout.ts';
import { UsageError } from '../errors.ts';
import type { PciAccess } from './access.ts';
import { CAPABILITY_ID, checkExtent, findCapability, readCapabilities } from './capabilities.ts';
import type { ConfigReader } from './config-space.ts';

export interface MsixCapability {
  /** Of the capability, in config space. */
  readonly offset: number;
  /** Vectors: 1 to 2048. */
  readonly tableSize: number;
  readonly enabled: boolean;
  /** Function Mask: no vector fires, whatever its own mask bit says. */
  readonly functionMasked: boolean;
  /** The BAR that holds the table; 6 and 7 are reserved, and a device that says them lies. */
  readonly tableBar: number;
  readonly tableOffset: number;
  readonly pbaBar: number;
  readonly pbaOffset: number;
}

/** One vector's table entry. */
export const MSIX_TABLE_ENTRY = layout('MSI-X table entry', 16, {
  address: u64(0x0, 'where the message is written; bits 1:0 are zero'),
  data: u32(0x8),
  control: u32(0xc, 'bit 0: masked'),
});

export interface MsixEntry {
  readonly address: bigint;
  readonly data: number;
  readonly masked: boolean;
}

const ENABLE = 0x8000;
const FUNCTION_MASK = 0x4000;
const ENTRY_MASKED = 0x1;

/** The capability from Message Control and the two offset words that follow it. */
export function decodeMsixCapability(offset: number, control: number, table: number, pba: number): MsixCapability {
  return {
    offset,
    tableSize: (control & 0x7ff) + 1,
    enabled: (control & ENABLE) !== 0,
    functionMasked: (control & FUNCTION_MASK) !== 0,
    tableBar: table & 7,
    tableOffset: (table & ~7) >>> 0,
    pbaBar: pba & 7,
    pbaOffset: (pba & ~7) >>> 0,
  };
}

/** The function's MSI-X capability, or undefined when it has none. */
export async function readMsixCapability(reader: ConfigReader): Promise<MsixCapability | undefined> {
  const found = findCapability(await readCapabilities(reader), CAPABILITY_ID.MSI_X);
  if (found === undefined) return undefined;
  checkExtent(found, 12);
  const { offset } = found;
  const control = await reader.configRead(offset + 2, 2);
  return decodeMsixCapability(offset, control, await reader.configRead(offset + 4, 4), await reader.configRead(offset + 8, 4));
}

/** Sets Enable and Function Mask; the rest of Message Control is read-only. */
export async function writeMsixControl(
  access: Pick<PciAccess, 'configWrite'>,
  capability: Pick<MsixCapability, 'offset'>,
  { enabled, functionMasked }: Pick<MsixCapability, 'enabled' | 'functionMasked'>,
): Promise<void> {
  await access.configWrite(capability.offset + 2, 2, (enabled ? ENABLE : 0) | (functionMasked ? FUNCTION_MASK : 0));
}

/** One entry out of a table's bytes. */
export function decodeMsixEntry(bytes: Uint8Array, offset = 0): MsixEntry {
  const { address, data, control } = MSIX_TABLE_ENTRY.decode(bytes, offset);
  return { address, data, masked: (control & ENTRY_MASKED) !== 0 };
}

export function encodeMsixEntry({ address, data, masked }: MsixEntry): Uint8Array {
  return MSIX_TABLE_ENTRY.encode({ address, data, control: masked ? ENTRY_MASKED : 0 });
}

export async function readMsixEntry(access: Pick<PciAccess, 'memRead'>, capability: MsixCapability, vector: number): Promise<MsixEntry> {
  const at = entryOffset(capability, vector);
  const bytes = new Uint8Array(MSIX_TABLE_ENTRY.sizeBytes);
  const view = new DataView(bytes.buffer);
  for (let word = 0; word < bytes.length; word += 4) {
    view.setUint32(word, Number(await access.memRead(capability.tableBar, at + word, 4)), true);
  }
  return decodeMsixEntry(bytes);
}

/** Writes an entry so that no half of it can fire: masked first, its mask bit last (6.8.3.5). */
export async function writeMsixEntry(access: Pick<PciAccess, 'memWrite'>, capability: MsixCapability, vector: number, entry: MsixEntry): Promise<void> {
  const at = entryOffset(capability, vector);
  const view = new DataView(encodeMsixEntry(entry).buffer);
  const write = (offset: number, value: number): Promise<void> => access.memWrite(capability.tableBar, at + offset, 4, BigInt(value));
  await write(0xc, ENTRY_MASKED);
  for (const offset of [0x0, 0x4, 0x8]) await write(offset, view.getUint32(offset, true));
  if (!entry.masked) await write(0xc, 0);
}

/** Sets one vector's mask bit; its other control bits, reserved, are kept. */
export async function maskMsixVector(
  access: Pick<PciAccess, 'memRead' | 'memWrite'>,
  capability: MsixCapability,
  vector: number,
  masked: boolean,
): Promise<void> {
  const at = entryOffset(capability, vector) + 0xc;
  const control = await access.memRead(capability.tableBar, at, 4);
  const mask = BigInt(ENTRY_MASKED);
  await access.memWrite(capability.tableBar, at, 4, masked ? control | mask : control & ~mask);
}

/** Whether a vector's message waits for its mask to be cleared. */
export async function readMsixPending(access: Pick<PciAccess, 'memRead'>, capability: MsixCapability, vector: number): Promise<boolean> {
  checkVector(capability, vector);
  const word = await access.memRead(capability.pbaBar, capability.pbaOffset + 4 * Math.floor(vector / 32), 4);
  return ((word >> BigInt(vector % 32)) & 1n) === 1n;
}

/** The vectors that are pending, ascending. */
export async function readMsixPendings(access: Pick<PciAccess, 'memRead'>, capability: MsixCapability): Promise<number[]> {
  const pending: number[] = [];
  for (let first = 0; first < capability.tableSize; first += 32) {
    const word = Number(await access.memRead(capability.pbaBar, capability.pbaOffset + first / 8, 4));
    for (let vector = first; vector < Math.min(first + 32, capability.tableSize); vector++) {
      if (((word >>> (vector - first)) & 1) === 1) pending.push(vector);
    }
  }
  return pending;
}

/** The bytes that the table takes: 16 a vector. */
export function msixTableBytes({ tableSize }: Pick<MsixCapability, 'tableSize'>): number {
  return tableSize * MSIX_TABLE_ENTRY.sizeBytes;
}

/** The bytes that the pending bits take: whole 64-bit words. */
export function msixPbaBytes({ tableSize }: Pick<MsixCapability, 'tableSize'>): number {
  return Math.ceil(tableSize / 64) * 8;
}

function entryOffset(capability: MsixCapability, vector: number): number {
  checkVector(capability, vector);
  return capability.tableOffset + vector * MSIX_TABLE_ENTRY.sizeBytes;
}

function checkVector({ tableSize }: MsixCapability, vector: number): void {
  if (!Number.isInteger(vector) || vector < 0 || vector >= tableSize) {
    throw new UsageError(`the function has MSI-X vectors 0 to ${tableSize - 1}; ${vector} is none`);
  }
}
