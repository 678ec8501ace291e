// The pci.ids database: names of vendors, devices, subsystems, classes and programming interfaces.
// Source: the file's own header (https://pci-ids.ucw.cz). The database is no part of this package: it comes with
// the guest's userland, or is not there.

export interface PciIds {
  vendor(vendorId: number): string | undefined;
  device(vendorId: number, deviceId: number): string | undefined;
  /** Of a device whose subsystem this is; without one of its own, undefined. */
  subsystem(vendorId: number, deviceId: number, subVendorId: number, subDeviceId: number): string | undefined;
  baseClass(baseClass: number): string | undefined;
  subclass(classId: number): string | undefined;
  programmingInterface(classId: number, programmingInterface: number): string | undefined;
}

const LINE = /^(?<tabs>\t{0,2})(?:(?<list>[A-Z]) )?(?<first>[0-9a-f]{2,4})(?: (?<second>[0-9a-f]{4}))? {2}(?<name>.*\S)\s*$/;

/** Reads the text of a pci.ids file; lines that are none of its own are passed over. */
export function parsePciIds(text: string): PciIds {
  const names = new Map<string, string>();
  let path: string[] = [];
  for (const line of text.split('\n')) {
    const match = LINE.exec(line)?.groups;
    if (match === undefined) {
      // A list that is unknown here: what is under it is not a device's.
      if (/^[A-Z]/.test(line)) path = [];
      continue;
    }
    const depth = match['tabs']?.length ?? 0;
    if (depth > 0 && path.length === 0) continue;
    const key = match['second'] === undefined ? match['first'] ?? '' : `${match['first']} ${match['second']}`;
    path = [...path.slice(0, depth), depth === 0 ? `${match['list'] ?? 'V'} ${key}` : key];
    if (path.length === depth + 1) names.set(path.join('/'), match['name'] ?? '');
  }
  const id = (value: number, digits = 4): string => value.toString(16).padStart(digits, '0');
  const classPath = (classId: number): string => `C ${id(classId >> 8, 2)}/${id(classId & 0xff, 2)}`;
  return {
    vendor: (vendor) => names.get(`V ${id(vendor)}`),
    device: (vendor, device) => names.get(`V ${id(vendor)}/${id(device)}`),
    subsystem: (vendor, device, subVendor, subDevice) => names.get(`V ${id(vendor)}/${id(device)}/${id(subVendor)} ${id(subDevice)}`)
      // Without an entry of its own, a subsystem with the device's own ids is the device.
      ?? (vendor === subVendor && device === subDevice ? names.get(`V ${id(vendor)}/${id(device)}`) : undefined),
    baseClass: (base) => names.get(`C ${id(base, 2)}`),
    subclass: (classId) => names.get(classPath(classId)),
    programmingInterface: (classId, interface_) => names.get(`${classPath(classId)}/${id(interface_, 2)}`),
  };
}
