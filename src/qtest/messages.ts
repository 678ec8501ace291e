// MSI-X and MSI of one function, turned on with their messages going into guest RAM (message-slots.ts).
// Source: PCI Local Bus 3.0, 6.8.1 and 6.8.2. What a driver would do; what arrives is for the test to judge.
import { UsageError } from '../errors.ts';
import type { PciAccess } from '../pci/access.ts';
import { readMsiCapability, type MsiCapability } from '../pci/msi.ts';
import {
  maskMsixVector, readMsixCapability, readMsixEntry, readMsixPendings, writeMsixControl, writeMsixEntry,
  type MsixCapability, type MsixEntry,
} from '../pci/msix.ts';
import type { ArrivedMessage, MessageSlots } from './message-slots.ts';

/** What makes slots: of `count` vectors, each an aligned block as MSI wants it. */
export type SlotMaker = (count: number) => Promise<MessageSlots>;

/** The data of MSI-X vector n: never zero, and another for each. */
export const msixData = (vector: number): number => 0x51000000 + vector;

export class MsixMessages {
  readonly capability: MsixCapability;
  readonly slots: MessageSlots;
  readonly #access: PciAccess;

  /** Every entry points to its slot and is unmasked; then MSI-X is enabled. UsageError without the capability. */
  static async enable(access: PciAccess, makeSlots: SlotMaker): Promise<MsixMessages> {
    const capability = await readMsixCapability(access);
    if (capability === undefined) throw new UsageError('the function has no MSI-X capability');
    const slots = await makeSlots(capability.tableSize);
    const messages = new MsixMessages(access, capability, slots);
    await writeMsixControl(access, capability, { enabled: true, functionMasked: true });
    // All on their way at once: 2048 entries are ten thousand writes, and each round trip is a turn of QEMU's main loop.
    await Promise.all(Array.from({ length: capability.tableSize }, (_, vector) => messages.point(vector, vector)));
    await messages.control({ enabled: true, functionMasked: false });
    return messages;
  }

  private constructor(access: PciAccess, capability: MsixCapability, slots: MessageSlots) {
    this.#access = access;
    this.capability = capability;
    this.slots = slots;
  }

  /** Let `vector` send the message of `slot`. */
  point(vector: number, slot: number, options?: { masked?: boolean }): Promise<void> {
    return this.pointAt(vector, this.slots.addressOf(slot), msixData(slot), options);
  }

  /** Let `vector` write `data` to any address: RAM, or another device's memory. */
  pointAt(vector: number, address: bigint, data: number, { masked = false }: { masked?: boolean } = {}): Promise<void> {
    return writeMsixEntry(this.#access, this.capability, vector, { address, data, masked });
  }

  /** The table's entry as it stands. */
  entry(vector: number): Promise<MsixEntry> {
    return readMsixEntry(this.#access, this.capability, vector);
  }

  /** Message Control: the enable bit and Function Mask. */
  control(state: { readonly enabled: boolean; readonly functionMasked: boolean }): Promise<void> {
    return writeMsixControl(this.#access, this.capability, state);
  }

  /** The vector's own mask bit. */
  mask(vector: number, masked = true): Promise<void> {
    return maskMsixVector(this.#access, this.capability, vector, masked);
  }

  /** The vectors whose pending bit is set. */
  pending(): Promise<number[]> {
    return readMsixPendings(this.#access, this.capability);
  }

  /** The vectors whose message came since the last time, ascending; one with another's data shows as that data. */
  async arrived(): Promise<number[]> {
    return (await this.slots.take()).map(({ vector, data }) => (data === msixData(vector) ? vector : data));
  }

  /** Until this vector's message came. */
  async next(vector: number, options?: { timeoutMs?: number }): Promise<void> {
    await this.slots.takeNext(vector, options);
  }
}

export class MsiMessages {
  readonly capability: MsiCapability;
  readonly slots: MessageSlots;
  /** The data of message 0: the function puts its vector into the low bits. */
  readonly baseData: number;
  readonly #access: PciAccess;

  /**
   * MSI with as many messages as `vectors`, a power of two of at most those that the function asks for; default
   * all. There is one address for all of them: the slot of message 0, and each data tells which it was.
   */
  static async enable(access: PciAccess, makeSlots: SlotMaker, vectors?: number): Promise<MsiMessages> {
    const capability = await readMsiCapability(access);
    if (capability === undefined) throw new UsageError('the function has no MSI capability');
    const granted = vectors ?? capability.vectorsRequested;
    if (!Number.isInteger(Math.log2(granted)) || granted > capability.vectorsRequested) {
      throw new UsageError(`MSI with ${granted} messages asked for`, { hint: `a power of two, at most ${capability.vectorsRequested}` });
    }
    const slots = await makeSlots(1);
    const messages = new MsiMessages(access, capability, slots, 0x5a00);
    await access.configWrite(capability.offset + 0x4, 4, Number(slots.base & 0xffffffffn));
    if (capability.is64Bit) await access.configWrite(capability.offset + 0x8, 4, Number(slots.base >> 32n));
    await access.configWrite(capability.offset + (capability.is64Bit ? 0xc : 0x8), 2, messages.baseData);
    if (capability.maskable) await messages.mask(0);
    await messages.control(true, granted);
    return messages;
  }

  private constructor(access: PciAccess, capability: MsiCapability, slots: MessageSlots, baseData: number) {
    this.#access = access;
    this.capability = capability;
    this.slots = slots;
    this.baseData = baseData;
  }

  /** The enable bit and Multiple Message Enable; the rest of Message Control is read-only. */
  async control(enabled: boolean, vectors = 1): Promise<void> {
    await this.#access.configWrite(this.capability.offset + 2, 2, (Math.log2(vectors) << 4) | (enabled ? 1 : 0));
  }

  /** The mask bits, one a message. UsageError when the function has none. */
  async mask(bits: number): Promise<void> {
    await this.#access.configWrite(this.#masks(), 4, bits);
  }

  /** The pending bits. */
  async pending(): Promise<number> {
    return this.#access.configRead(this.#masks() + 4, 4);
  }

  /** The message that came last since the last time, as its number; undefined when none did. */
  async arrived(): Promise<number | undefined> {
    const [message]: ArrivedMessage[] = await this.slots.take();
    return message === undefined ? undefined : message.data - this.baseData;
  }

  /** The next message's number. */
  async next(options?: { timeoutMs?: number }): Promise<number> {
    return await this.slots.takeNext(0, options) - this.baseData;
  }

  #masks(): number {
    const { offset, is64Bit, maskable } = this.capability;
    if (!maskable) throw new UsageError('the function\'s MSI capability has no mask bits');
    return offset + (is64Bit ? 0x10 : 0xc);
  }
}
