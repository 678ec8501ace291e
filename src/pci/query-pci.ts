// QMP query-pci: the VMM's view of buses, functions and BARs (QEMU: qapi/pci.json). Types and finders.
// Numbers come as JavaScript numbers: an address over 2^53 would be rounded.
import type { Bar } from './bar.ts';

export interface QueryPciRegion {
  /** 0 to 5; 6 is the ROM. */
  readonly bar: number;
  readonly type: 'memory' | 'io';
  /** -1 when decode is off, the BAR is zero, or it ends at 4 GiB. */
  readonly address: number;
  readonly size: number;
  readonly prefetch?: boolean;
  readonly mem_type_64?: boolean;
}

export interface QueryPciDevice {
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
  readonly id: { readonly device: number; readonly vendor: number; readonly subsystem?: number; readonly 'subsystem-vendor'?: number };
  readonly class_info: { readonly class: number; readonly desc?: string };
  readonly irq?: number;
  readonly irq_pin: number;
  readonly qdev_id: string;
  readonly regions: readonly QueryPciRegion[];
  readonly pci_bridge?: {
    readonly bus: { readonly number: number; readonly secondary: number; readonly subordinate: number };
    readonly devices?: readonly QueryPciDevice[];
  };
}

export interface QueryPciBus {
  readonly bus: number;
  readonly devices: readonly QueryPciDevice[];
}

/** Every function, those behind bridges too; a bridge before what is behind it. */
export function functionsOf(buses: readonly QueryPciBus[]): QueryPciDevice[] {
  const below = (devices: readonly QueryPciDevice[]): QueryPciDevice[] =>
    devices.flatMap((device) => [device, ...below(device.pci_bridge?.devices ?? [])]);
  return below(buses.flatMap((bus) => bus.devices));
}

/** The function with this `-device id=`, at any depth. */
export function findByQdevId(buses: readonly QueryPciBus[], id: string): QueryPciDevice | undefined {
  return functionsOf(buses).find((device) => device.qdev_id === id);
}

/** The function at an address. Bus numbers are the guest's: before it has set its bridges up they are 0. */
export function findByAddress(
  buses: readonly QueryPciBus[],
  address: { readonly bus: number; readonly slot: number; readonly function: number },
): QueryPciDevice | undefined {
  return functionsOf(buses).find(
    (device) => device.bus === address.bus && device.slot === address.slot && device.function === address.function,
  );
}

/** A region as a BAR; `address` is undefined where QEMU maps it nowhere. The ROM is index 6. */
export function barOfRegion(region: QueryPciRegion): Omit<Bar, 'address'> & { readonly address: bigint | undefined } {
  return {
    index: region.bar,
    kind: region.type === 'io' ? 'io' : region.mem_type_64 === true ? 'mem64' : 'mem32',
    prefetchable: region.prefetch === true,
    address: region.address === -1 ? undefined : BigInt(region.address),
    sizeBytes: BigInt(region.size),
  };
}
