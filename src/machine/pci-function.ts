// A PCI function of a plugged device, as each side sees it: QEMU's monitor, the guest's sysfs, and the
// device's own back end.
import { BootError, ProtocolError } from '../errors.ts';
import type { FireWitness } from '../qemu/attachment.ts';
import { findByQdevId, type QueryPciBus, type QueryPciDevice } from '../pci/query-pci.ts';
import type { Machine } from './machine.ts';
import type { Plugged } from './plugged.ts';

/** One line of sysfs `resource`: a BAR (0 to 5) or the ROM (6) as the kernel has it. */
export interface GuestResource {
  readonly index: number;
  readonly start: bigint;
  readonly sizeBytes: bigint;
  /** IORESOURCE_* bits (Linux: include/linux/ioport.h). */
  readonly flags: bigint;
}

export class PciFunction {
  private constructor(
    readonly machine: Machine,
    readonly plugged: Plugged,
    /** `0000:01:00.0` */
    readonly bdf: string,
  ) {}

  /** Where the guest's bus numbers put it, from QEMU's view of the bridges. */
  static async find(machine: Machine, plugged: Plugged): Promise<PciFunction> {
    const device = await queryPci(machine, plugged.id);
    return new PciFunction(machine, plugged, bdfOf(device));
  }

  /** QEMU's device id. */
  get id(): string { return this.plugged.id; }
  get port(): string { return this.plugged.port; }
  get kind(): string { return this.plugged.device.kind; }
  /** The device's own count of what it fired; undefined when QEMU's own model is the device. */
  get fireWitness(): FireWitness | undefined { return this.plugged.attachment.witness; }
  get sysfs(): string { return `/sys/bus/pci/devices/${this.bdf}`; }

  /** What `query-pci` says of it now. */
  vmm(): Promise<QueryPciDevice> {
    return queryPci(this.machine, this.id);
  }

  /** The first 256 bytes of config space, or all 4096 where the guest shows them. */
  async configSpace(): Promise<Buffer> {
    return this.machine.guest.readFile(`${this.sysfs}/config`);
  }

  /** The kernel's resources of its BARs and ROM; unset ones are left out. */
  async guestResources(): Promise<GuestResource[]> {
    const { stdout } = await this.machine.guest.shell.run(`cat ${this.sysfs}/resource`);
    return stdout.trim().split('\n').slice(0, 7).map((line, index) => {
      const [start = 0n, end = 0n, flags = 0n] = line.split(' ').map((word) => BigInt(word));
      return { index, start, sizeBytes: flags === 0n ? 0n : end - start + 1n, flags };
    }).filter(({ flags }) => flags !== 0n);
  }

  /** Linux interrupt numbers of its MSI or MSI-X vectors, by vector; empty when none is allocated. */
  async messageIrqs(): Promise<number[]> {
    const { stdout } = await this.machine.guest.shell.run(`echo ${this.sysfs}/msi_irqs/*`);
    return [...stdout.matchAll(/\/(\d+)(?=\s)/g)].map(([, irq]) => Number(irq)).sort((a, b) => a - b);
  }

  /** The driver that is bound to it, or undefined. */
  async driver(): Promise<string | undefined> {
    // The shell's own means: under TCG each process costs 10 ms.
    const { stdout } = await this.machine.guest.shell.run(`cd -P ${this.sysfs}/driver 2>/dev/null && echo "$PWD"; cd /`);
    return stdout.trim().split('/').pop() || undefined;
  }
}

async function queryPci(machine: Machine, id: string): Promise<QueryPciDevice> {
  const buses = await machine.qmp.execute<QueryPciBus[]>('query-pci');
  const device = findByQdevId(buses, id);
  if (device === undefined) throw new ProtocolError(`query-pci does not show ${id}`, { received: buses });
  return device;
}

function bdfOf({ bus, slot, function: fn }: QueryPciDevice): string {
  if (bus === undefined) throw new BootError('query-pci shows a device without a bus');
  return `0000:${hex2(bus)}:${hex2(slot)}.${fn}`;
}

function hex2(value: number): string {
  return value.toString(16).padStart(2, '0');
}
