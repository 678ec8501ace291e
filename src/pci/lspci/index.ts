// The folder's face: functions of any origin, shown as lspci does.
export { parseDump } from './dump.ts';
export type { KernelResource, KernelView, LspciFunction, PciAddress } from './function.ts';
export { parseAddress } from './function.ts';
export { parsePciIds, type PciIds } from './pci-ids.ts';
export { type LspciOptions, renderLspci } from './render.ts';
export { parseIds, parseSlot, type Selection } from './selection.ts';
