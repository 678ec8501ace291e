// Ids as lspci writes them: names, numbers (-n), or both (-nn).
import type { PciIds } from './pci-ids.ts';
import { hex } from './text.ts';

/** 0: names; 1 (-n): numbers; 2 (-nn): both. */
export type NumericLevel = 0 | 1 | 2;

export class Names {
  constructor(readonly ids: PciIds, readonly numeric: NumericLevel) {}

  vendor(id: number): string {
    return this.#one(this.ids.vendor(id), 'Vendor', hex(id, 4));
  }

  device(vendor: number, id: number): string {
    return this.#one(this.ids.device(vendor, id), 'Device', hex(id, 4));
  }

  /** `Red Hat, Inc. Virtio RNG`. */
  vendorDevice(vendor: number, device: number): string {
    return this.#pair(this.ids.vendor(vendor), this.ids.device(vendor, device), vendor, device);
  }

  subsystemVendor(id: number): string {
    return this.#one(this.ids.vendor(id), 'Unknown vendor', hex(id, 4));
  }

  subsystemDevice(vendor: number, device: number, subVendor: number, subDevice: number): string {
    return this.#one(this.ids.subsystem(vendor, device, subVendor, subDevice), 'Device', hex(subDevice, 4));
  }

  subsystem(vendor: number, device: number, subVendor: number, subDevice: number): string {
    return this.#pair(this.ids.vendor(subVendor), this.ids.subsystem(vendor, device, subVendor, subDevice), subVendor, subDevice);
  }

  class(id: number): string {
    const name = this.ids.subclass(id);
    const base = this.ids.baseClass(id >> 8);
    // A subclass that is unknown is told by its base class, and always with its number.
    if (name === undefined && base !== undefined && this.numeric !== 1) return `${base} [${hex(id, 4)}]`;
    return this.#one(name, 'Class', hex(id, 4));
  }

  #one(name: string | undefined, kind: string, number: string): string {
    if (this.numeric === 1) return number;
    if (this.numeric === 2) return `${name ?? kind} [${number}]`;
    return name ?? `${kind} ${number}`;
  }

  #pair(vendorName: string | undefined, deviceName: string | undefined, vendor: number, device: number): string {
    const both = `${hex(vendor, 4)}:${hex(device, 4)}`;
    if (this.numeric === 1) return both;
    if (vendorName === undefined) return this.numeric === 2 ? `Device [${both}]` : `Device ${both}`;
    if (this.numeric === 2) return `${vendorName} ${deviceName ?? 'Device'} [${both}]`;
    return `${vendorName} ${deviceName ?? `Device ${hex(device, 4)}`}`;
  }
}
