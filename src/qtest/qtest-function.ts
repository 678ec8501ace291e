// A PCI function over qtest: PciAccess by config mechanism, memory and I/O accesses at the addresses that its
// BARs have now. Not here: where the addresses come from (enumeration.ts), interrupts (messages.ts).
import { ProtocolError, UsageError } from '../errors.ts';
import type { AccessWidth, ConfigWidth, PciAccess } from '../pci/access.ts';
import { readBars, type Bar, type BarKind } from '../pci/bar.ts';
import { COMMAND } from '../pci/config-space.ts';
import type { QtestClient } from './client.ts';
import { formatBdf, type ConfigMechanism, type PciAddress } from './config-mechanism.ts';
import type { PciNode } from './enumeration.ts';

export class QtestFunction implements PciAccess {
  readonly address: PciAddress;
  /** `0000:01:00.0` */
  readonly bdf: string;
  readonly node: PciNode;
  readonly #qtest: QtestClient;
  readonly #config: ConfigMechanism;
  /** As config space had them; undefined when it was written since. */
  #bars: Promise<readonly Bar[]> | undefined;

  constructor(node: PciNode, qtest: QtestClient, config: ConfigMechanism) {
    this.node = node;
    this.address = node.address;
    this.bdf = formatBdf(node.address);
    this.#qtest = qtest;
    this.#config = config;
  }

  configRead(offset: number, width: ConfigWidth): Promise<number> {
    return this.#config.read(this.address, offset, width);
  }

  async configWrite(offset: number, width: ConfigWidth, value: number): Promise<void> {
    if (offset >= 0x10 && offset < 0x28) this.#bars = undefined;
    await this.#config.write(this.address, offset, width, value);
  }

  async memRead(bar: number, offset: number, width: AccessWidth): Promise<bigint> {
    return this.#qtest.memoryRead(await this.#at(bar, offset, width, 'memory'), width);
  }

  async memWrite(bar: number, offset: number, width: AccessWidth, value: bigint): Promise<void> {
    await this.#qtest.memoryWrite(await this.#at(bar, offset, width, 'memory'), width, value);
  }

  async ioRead(bar: number, offset: number, width: ConfigWidth): Promise<number> {
    return this.#qtest.ioRead(Number(await this.#at(bar, offset, width, 'io')), width);
  }

  async ioWrite(bar: number, offset: number, width: ConfigWidth, value: number): Promise<void> {
    await this.#qtest.ioWrite(Number(await this.#at(bar, offset, width, 'io')), width, value);
  }

  /** The BARs with their addresses as they stand in config space now; absent ones are left out. */
  async bars(): Promise<Bar[]> {
    this.#bars = this.#readBars();
    return [...await this.#bars];
  }

  /** UsageError when the function has no such BAR. */
  async bar(index: number): Promise<Bar> {
    this.#bars ??= this.#readBars();
    const bar = (await this.#bars).find((one) => one.index === index);
    if (bar === undefined) throw new UsageError(`${this.bdf} has no BAR ${index}`, { hint: `it has ${this.node.bars.map((one) => one.index).join(', ') || 'none'}` });
    return bar;
  }

  /** Set and clear bits of the command register; what is left out stays. Returns what it was before. */
  async command(changes: Partial<Record<keyof typeof COMMAND, boolean>>): Promise<number> {
    const before = await this.configRead(0x04, 2);
    let after = before;
    for (const [name, on] of Object.entries(changes)) {
      const bit = COMMAND[name as keyof typeof COMMAND];
      after = on ? after | bit : after & ~bit;
    }
    await this.configWrite(0x04, 2, after);
    return before;
  }

  /** Write an address into a BAR. It need be neither free nor aligned: the register takes what bits it has. */
  async moveBar(index: number, address: bigint): Promise<void> {
    const { kind } = await this.bar(index);
    const offset = 0x10 + 4 * index;
    await this.configWrite(offset, 4, Number(address & 0xffffffffn));
    if (kind === 'mem64') await this.configWrite(offset + 4, 4, Number(address >> 32n));
  }

  async #readBars(): Promise<Bar[]> {
    const registers = await readBars(this, this.node.bridge === undefined ? 6 : 2);
    return this.node.bars.map((bar) => ({ ...bar, address: registers.find(({ index }) => index === bar.index)?.address ?? 0n }));
  }

  async #at(index: number, offset: number, width: number, space: 'memory' | 'io'): Promise<bigint> {
    const { kind, sizeBytes, address } = await this.bar(index);
    if ((kind === 'io') !== (space === 'io')) throw new UsageError(`BAR ${index} of ${this.bdf} is ${wordOf(kind)}`);
    if (!Number.isInteger(offset) || offset < 0 || BigInt(offset + width) > sizeBytes || offset % width !== 0) {
      throw new UsageError(`there is no access of ${width} bytes at ${offset} of BAR ${index}, which has ${sizeBytes}`);
    }
    if (address === 0n) throw new ProtocolError(`BAR ${index} of ${this.bdf} has no address`);
    return address + BigInt(offset);
  }
}

function wordOf(kind: BarKind): string {
  return kind === 'io' ? 'I/O space: ioRead and ioWrite' : 'memory: memRead and memWrite';
}
