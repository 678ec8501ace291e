// ivshmem-doorbell: the host's side.
export { IVSHMEM_GUEST_PEER, IVSHMEM_HOST_PEER, IVSHMEM_VECTORS_MAX, IvshmemServer } from './server.ts';
export type { IvshmemServerOptions } from './server.ts';
