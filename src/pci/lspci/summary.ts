// The line (or, with -m, the record) that says which function it is.
import { type Identity, identityOf, type LspciFunction, type PciAddress } from './function.ts';
import type { Names } from './names.ts';
import { hex } from './text.ts';

/** `00:1f.2`; with its domain when that is asked for. */
export function addressText({ domain, bus, device, function: fn }: PciAddress, withDomain: boolean): string {
  return `${withDomain ? `${hex(domain, 4)}:` : ''}${hex(bus, 2)}:${hex(device, 2)}.${fn.toString()}`;
}

export interface SubsystemIds {
  readonly vendorId: number;
  readonly deviceId: number;
}

/**
 * The subsystem of an endpoint's header. Undefined where there is none: bridges have it in a capability, and ids of
 * zero or ones are no ids.
 */
export function headerSubsystem({ config }: LspciFunction, { headerType }: Identity): SubsystemIds | undefined {
  if (headerType !== 0) return undefined;
  const ids = { vendorId: config.u16(0x2c), deviceId: config.u16(0x2e) };
  return ids.vendorId === 0 || ids.vendorId === 0xffff ? undefined : ids;
}

/** `00:02.0 PCI bridge: Red Hat, Inc. QEMU PCIe Root port (rev 01)`, and from -v on its programming interface. */
export function summaryLine(fn: LspciFunction, address: string, names: Names, verbosity: number): string {
  const id = identityOf(fn);
  let text = `${address} ${names.class(id.classId)}: ${names.vendorDevice(id.vendorId, id.deviceId)}`;
  if (id.revision !== 0) text += ` (rev ${hex(id.revision, 2)})`;
  if (verbosity > 0) {
    const interfaceName = names.ids.programmingInterface(id.classId, id.programmingInterface);
    if (id.programmingInterface !== 0 || interfaceName !== undefined) {
      text += ` (prog-if ${hex(id.programmingInterface, 2)}${interfaceName === undefined ? '' : ` [${interfaceName}]`})`;
    }
  }
  return `${text}\n`;
}

/** One line of quoted fields, as `-m` and `-mm` have it. */
export function machineReadableLine(fn: LspciFunction, address: string, names: Names, subsystem: SubsystemIds | undefined): string {
  const id = identityOf(fn);
  const quoted = [names.class(id.classId), names.vendor(id.vendorId), names.device(id.vendorId, id.deviceId)].map(quote);
  const revision = id.revision === 0 ? '' : ` -r${hex(id.revision, 2)}`;
  const sub = subsystem === undefined ? [quote(''), quote('')] : subsystemWords(id, names, subsystem).map(quote);
  return `${address} ${quoted.join(' ')}${revision} -p${hex(id.programmingInterface, 2)} ${sub.join(' ')}\n`;
}

export interface RecordOptions {
  /** Of the address: Device for -vm, Slot for -vmm. */
  readonly tag: 'Device' | 'Slot';
  /** -k. */
  readonly drivers: boolean;
}

/** A field a line, as `-vm` and `-vmm` have it. */
export function machineReadableRecord(fn: LspciFunction, address: string, names: Names, subsystem: SubsystemIds | undefined, { tag, drivers }: RecordOptions): string {
  const id = identityOf(fn);
  const { kernel } = fn;
  const fields: [string, string | undefined][] = [
    [tag, address],
    ['Class', names.class(id.classId)],
    ['Vendor', names.vendor(id.vendorId)],
    ['Device', names.device(id.vendorId, id.deviceId)],
    ...(subsystem === undefined ? [] : subsystemWords(id, names, subsystem).map((text, index): [string, string] => [index === 0 ? 'SVendor' : 'SDevice', text])),
    ['PhySlot', kernel?.physicalSlot],
    ['Rev', id.revision === 0 ? undefined : hex(id.revision, 2)],
    ['ProgIf', hex(id.programmingInterface, 2)],
    ['Driver', drivers ? kernel?.driver : undefined],
    ...(drivers ? kernel?.modules ?? [] : []).map((name): [string, string] => ['Module', name]),
    ['NUMANode', kernel?.numaNode?.toString()],
    ['IOMMUGroup', kernel?.iommuGroup],
  ];
  return `${fields.filter(([, value]) => value !== undefined).map(([name, value]) => `${name}:\t${value ?? ''}\n`).join('')}\n`;
}

function subsystemWords({ vendorId, deviceId }: Identity, names: Names, sub: SubsystemIds): [string, string] {
  return [names.subsystemVendor(sub.vendorId), names.subsystemDevice(vendorId, deviceId, sub.vendorId, sub.deviceId)];
}

function quote(text: string): string {
  return `"${text.replace(/["\\]/g, '\\$&')}"`;
}
