// vhost-user: a virtio device in this process, driven by a QEMU guest.
export { CONFIG_CHANGE, VhostUserBackend } from './backend.ts';
export type { CallDecision, VhostUserBackendOptions } from './backend.ts';
export type { ChannelOutcome } from './backend-channel.ts';
