// vfio-user: a whole PCI function in this process, driven by a QEMU guest.
export { VfioUserServer } from './server.ts';
export type { VfioFunction, VfioRegion, VfioUserServerOptions } from './server.ts';
export { REGION } from './protocol.ts';
