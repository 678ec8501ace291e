// One PCI function of a bare machine: PciAccess, its interrupts into guest RAM or onto a line, and what QEMU says
// of it.
import { UsageError } from '../errors.ts';
import { findByAddress, type QueryPciBus, type QueryPciDevice } from '../pci/query-pci.ts';
import { MessageSlots } from '../qtest/message-slots.ts';
import { MsiMessages, MsixMessages } from '../qtest/messages.ts';
import { QtestFunction } from '../qtest/qtest-function.ts';
import type { PciNode } from '../qtest/enumeration.ts';
import { VirtioDriver } from '../qtest/virtio-driver.ts';
import { openVirtioTransport } from '../qtest/virtio-transport.ts';
import type { BareMachine } from './bare-machine.ts';

const messages = new WeakMap<PciNode, MsixMessages | MsiMessages>();

export class BareFunction extends QtestFunction {
  readonly machine: BareMachine;

  constructor(machine: BareMachine, node: PciNode) {
    super(node, machine.qtest, machine.innards.bus.config);
    this.machine = machine;
  }

  /** What the VMM says of it now. */
  async vmm(): Promise<QueryPciDevice> {
    const found = findByAddress(await this.machine.qmp.execute<QueryPciBus[]>('query-pci'), this.address);
    if (found === undefined) throw new UsageError(`QEMU no longer has ${this.bdf}`);
    return found;
  }

  /** Turn MSI-X on, each vector's message going into a slot of guest RAM of its own. */
  enableMsix(): Promise<MsixMessages> {
    return this.machine.scene(() => this.#remembered(MsixMessages.enable(this, this.#slots)));
  }

  /** Turn MSI on, its messages going into guest RAM; as many as the function asks for, or fewer. */
  enableMsi(vectors?: number): Promise<MsiMessages> {
    return this.machine.scene(() => this.#remembered(MsiMessages.enable(this, this.#slots, vectors)));
  }

  /** What enableMsix or enableMsi gave last, of this object or of another for the same function. */
  get messages(): MsixMessages | MsiMessages | undefined {
    return messages.get(this.node);
  }

  /** A driver's side of this virtio device, its structures reached in their BARs or through PCI_CFG's window. */
  virtio(through: 'bars' | 'pci-cfg' = 'bars'): Promise<VirtioDriver> {
    return this.machine.scene(async () => new VirtioDriver(this.machine, await openVirtioTransport(this, through)));
  }

  /**
   * The line of the I/O APIC that its INTx pin is wired to, by the rule of bridges (slot + pin) mod 4 (PCI-to-PCI
   * Bridge 1.2, 9.1) and the root bus's wiring. UsageError when it has no pin.
   */
  async intxLine(): Promise<number> {
    let pin = await this.configRead(0x3d, 1) - 1;
    if (pin < 0) throw new UsageError(`${this.bdf} has no interrupt pin`);
    const { enumeration, intxLines } = this.machine.innards.bus;
    let { bus, slot } = this.address;
    while (bus !== 0) {
      pin = (slot + pin) % 4;
      const bridge = enumeration.functions.find((one) => one.bridge?.secondary === bus);
      if (bridge === undefined) throw new UsageError(`there is no bridge to bus ${bus}`);
      ({ bus, slot } = bridge.address);
    }
    return intxLines[(slot + pin + (this.machine.innards.preset.portDriver === undefined ? 3 : 0)) % 4] ?? 0;
  }

  async #remembered<T extends MsixMessages | MsiMessages>(enabling: Promise<T>): Promise<T> {
    const enabled = await enabling;
    messages.set(this.node, enabled);
    return enabled;
  }

  readonly #slots = async (count: number): Promise<MessageSlots> =>
    new MessageSlots(this.machine.qtest, await this.machine.allocate(4 * count, 64), count);
}
