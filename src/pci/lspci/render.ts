// Functions as lspci (pciutils 3.13) shows them. Pure: what is shown was read before.
// Not here: what needs the machine again (-M), DNS (-q, -Q), access methods (-A, -H).
import { capabilityLines } from './capabilities.ts';
import { dumpedBytes, formatDump } from './dump.ts';
import { compareAddresses, type Identity, identityOf, type LspciFunction } from './function.ts';
import type { Selection } from './selection.ts';
import { selected } from './selection.ts';
import { Names, type NumericLevel } from './names.ts';
import type { PciIds } from './pci-ids.ts';
import { regionLines, romLine } from './regions.ts';
import { longStatus, selfTest, shortStatus } from './status.ts';
import { addressText, headerSubsystem, machineReadableLine, machineReadableRecord, type SubsystemIds, summaryLine } from './summary.ts';
import { hex } from './text.ts';
import { treeText } from './tree.ts';
import { bridgeControlLines, busNumbersLine, secondaryStatusLine, windowLines } from './windows.ts';

export interface LspciOptions {
  /** -v, -vv, -vvv. */
  readonly verbosity?: 0 | 1 | 2 | 3;
  /** -n (1), -nn (2). */
  readonly numeric?: NumericLevel;
  /** -x, -xx (the same), -xxx, -xxxx. */
  readonly dump?: 0 | 1 | 2 | 3 | 4;
  /** -t. */
  readonly tree?: boolean;
  /** -b: addresses and interrupts as the registers have them. */
  readonly busView?: boolean;
  /** -k: drivers and modules. */
  readonly drivers?: boolean;
  /** -D. */
  readonly domains?: boolean;
  /** -m (1), -mm (2). */
  readonly machineReadable?: 0 | 1 | 2;
  /** -s and -d. */
  readonly selection?: Selection;
  /** Names; without a database everything is numbers (-n). */
  readonly ids?: PciIds | undefined;
}

/** What `lspci` with these options prints of these functions. */
export function renderLspci(functions: readonly LspciFunction[], options: LspciOptions = {}): string {
  const { verbosity = 0, dump = 0, machineReadable = 0 } = options;
  const names = new Names(options.ids ?? NO_IDS, options.ids === undefined ? 1 : options.numeric ?? 0);
  const sorted = [...functions].sort((a, b) => compareAddresses(a.address, b.address));
  if (options.tree === true) return treeText(sorted, { names, verbosity, filter: (fn) => selected(fn, options.selection) });
  const withDomain = options.domains === true || sorted.some(({ address }) => address.domain !== 0);
  let text = '';
  for (const fn of sorted) {
    if (!selected(fn, options.selection)) continue;
    const address = addressText(fn.address, withDomain);
    if (machineReadable > 0) {
      const subsystem = subsystemOf(fn);
      text += verbosity > 0 ? machineReadableRecord(fn, address, names, subsystem, { tag: machineReadable > 1 ? 'Slot' : 'Device', drivers: options.drivers === true }) : machineReadableLine(fn, address, names, subsystem);
    } else {
      text += summaryLine(fn, address, names, verbosity) + details(fn, options, names);
    }
    if (dump > 0) text += formatDump(fn.config.bytes.subarray(0, dumpedBytes(dump, fn.config.sizeBytes)));
    if (dump > 0 || (verbosity > 0 && machineReadable === 0)) text += '\n';
  }
  return text;
}

const NO_IDS: PciIds = {
  vendor: () => undefined, device: () => undefined, subsystem: () => undefined, baseClass: () => undefined, subclass: () => undefined, programmingInterface: () => undefined,
};

/** Of the header, or of a bridge's capability. */
function subsystemOf(fn: LspciFunction): SubsystemIds | undefined {
  const { config } = fn;
  const own = headerSubsystem(fn, identityOf(fn));
  if (own !== undefined || identityOf(fn).headerType !== 1 || (config.u16(0x06) & 0x10) === 0) return own;
  const seen = new Set<number>();
  for (let offset = config.u8(0x34) & ~3; offset !== 0 && !seen.has(offset) && config.has(offset, 8); offset = config.u8(offset + 1) & ~3) {
    seen.add(offset);
    if (config.u8(offset) !== 0x0d) continue;
    const ids = { vendorId: config.u16(offset + 4), deviceId: config.u16(offset + 6) };
    return ids.vendorId === 0 || ids.vendorId === 0xffff ? undefined : ids;
  }
  return undefined;
}

/** A bridge's class with another header, or another's with a bridge's. */
function invalidClass({ classId, headerType }: Identity): string {
  const fits = headerType === 0 ? classId !== 0x0604 : headerType !== 1 || classId >> 8 === 0x06;
  return fits ? '' : `\t!!! Invalid class ${hex(classId, 4)} for header type ${hex(headerType, 2)}\n`;
}

function details(fn: LspciFunction, { verbosity = 0, busView = false, drivers = false }: LspciOptions, names: Names): string {
  if (verbosity === 0 && !drivers) return '';
  const { config, kernel } = fn;
  const id = identityOf(fn);
  let text = '';
  const subsystem = subsystemOf(fn);
  if (kernel?.label !== undefined) text += `\tDeviceName: ${kernel.label}\n`;
  if (subsystem !== undefined) text += `\tSubsystem: ${names.subsystem(id.vendorId, id.deviceId, subsystem.vendorId, subsystem.deviceId)}\n`;
  if (verbosity > 0) {
    text += invalidClass(id);
    if (kernel?.physicalSlot !== undefined) text += `\tPhysical Slot: ${kernel.physicalSlot}\n`;
    const limits = id.headerType === 0 ? { minGrant: config.u8(0x3e), maxLatency: config.u8(0x3f) } : { minGrant: 0, maxLatency: 0 };
    text += verbosity > 1 ? longStatus(fn, limits, busView) : shortStatus(fn, busView);
    text += selfTest(fn);
    const base = { config, first: fn.address.device === 0 && fn.address.function === 0,  names, verbosity, vendorId: id.vendorId, deviceId: id.deviceId, classId: id.classId };
    if (id.headerType === 0) text += regionLines(fn, 6, verbosity, busView) + romLine(fn, 0x30, busView) + capabilityLines(base, 0);
    else if (id.headerType === 1) {
      text += regionLines(fn, 2, verbosity, busView) + busNumbersLine(config) + windowLines(fn, verbosity, busView)
        + (verbosity > 1 ? secondaryStatusLine(config) : '') + romLine(fn, 0x38, busView) + (verbosity > 1 ? bridgeControlLines(config) : '') + capabilityLines(base, 1);
    }
    else text += `\t!!! Unknown header type ${id.headerType.toString(16).padStart(2, '0')}\n`;
  }
  if (kernel?.driver !== undefined) text += `\tKernel driver in use: ${kernel.driver}\n`;
  if (kernel?.modules !== undefined && kernel.modules.length > 0) text += `\tKernel modules: ${kernel.modules.join(', ')}\n`;
  return text;
}
