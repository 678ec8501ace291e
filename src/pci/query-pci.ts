// QMP query-pci: the VMM's view of buses, functions and BARs (QEMU: qapi/pci.json).

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

/** The function with this `-device id=`, at any depth. */
export function findByQdevId(buses: readonly QueryPciBus[], id: string): QueryPciDevice | undefined {
  const search = (devices: readonly QueryPciDevice[]): QueryPciDevice | undefined => {
    for (const device of devices) {
      if (device.qdev_id === id) return device;
      const below = search(device.pci_bridge?.devices ?? []);
      if (below !== undefined) return below;
    }
    return undefined;
  };
  return search(buses.flatMap((bus) => bus.devices));
}
