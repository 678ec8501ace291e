// The layouts of vhost-user messages and the constants beside them. QEMU docs/interop/vhost-user.rst,
// "Message Specification". The messages themselves are in requests.ts. No behaviour.
import { layout, u16, u32, u64 } from '../bytes/layout.ts';

/** Bits of the header's flags ("Header"). */
export const HEADER_FLAGS = {
  /** The lower two bits: the version, always 1. */
  VERSION_MASK: 0x3,
  VERSION: 0x1,
  /** A reply of the receiving side. */
  REPLY: 0x4,
  /** The sender wants an acknowledgement (REPLY_ACK). */
  NEED_REPLY: 0x8,
} as const;

/** Feature bit of GET_FEATURES that stands for the protocol features; no virtio device has it. */
export const F_PROTOCOL_FEATURES = 30;
/** Feature bit of GET_FEATURES and SET_FEATURES: mark what is written in the dirty log ("Migration"). Not virtio's. */
export const F_LOG_ALL = 26;

/** SET_VRING_ADDR's flags: mark writes to the used ring too. */
export const VRING_F_LOG = 1;
/** Bytes that a bit of the dirty log stands for. */
export const LOG_PAGE_BYTES = 4096;

/** SET_VRING_KICK, _CALL and _ERR: the ring's index is in the low byte of the u64. */
export const VRING_INDEX_MASK = 0xff;
/** SET_VRING_KICK, _CALL and _ERR: no descriptor comes with it. */
export const VRING_NOFD = 0x100;

/** Config space that one message carries at most (QEMU hw/virtio/vhost-user.c, VHOST_USER_MAX_CONFIG_SIZE). */
export const CONFIG_SIZE_MAX = 256;
/** SET_CONFIG's flags: set by the front end at the end of a migration, read-only fields too. */
export const CONFIG_FLAG_MIGRATION = 1;
/** Regions that ADD_MEM_REG may add up to: what KVM on x86-64 gives user space. */
export const MEMORY_SLOTS_MAX = 509;
/** The longest payload that is read and not looked into: more than any request of the specification has. */
export const OPAQUE_BYTES_MAX = 4096;

export const header = layout('vhost-user header', 12, {
  request: u32(0, 'the message type'),
  flags: u32(4, 'HEADER_FLAGS'),
  size: u32(8, 'bytes of payload'),
});

export const u64Payload = layout('u64 payload', 8, { value: u64(0) });

export const vringState = layout('vring state', 8, {
  index: u32(0, 'the ring'),
  num: u32(4, 'what the request makes of it'),
});

export const vringAddress = layout('vring address', 40, {
  index: u32(0, 'the ring'),
  flags: u32(4, 'bit 0: log writes to the used ring'),
  descriptor: u64(8, 'descriptor table, a user address'),
  used: u64(16, 'used ring, a user address'),
  available: u64(24, 'avail ring, a user address'),
  log: u64(32, 'where to log, a guest address'),
});

export const memoryTable = layout('memory table', 8, {
  count: u32(0, 'regions that follow'),
  padding: u32(4),
});

export const memoryRegion = layout('memory region', 32, {
  guestAddress: u64(0, 'guest-physical'),
  size: u64(8, 'bytes'),
  userAddress: u64(16, "the front end's virtual address"),
  mmapOffset: u64(24, 'where the region starts in the file'),
});

/** ADD_MEM_REG and REM_MEM_REG: eight bytes of padding before the region. */
export const SINGLE_REGION_PADDING = 8;

export const configHeader = layout('config space', 12, {
  offset: u32(0, 'in config space'),
  size: u32(4, 'bytes that follow'),
  flags: u32(8, '0: writable fields, 1: live migration'),
});

export const logDescription = layout('log', 16, {
  size: u64(0, 'bytes'),
  offset: u64(8, 'where it starts in the file'),
});

/** QEMU's structure is not packed: four bytes of padding at its end are on the wire. */
export const inflightDescription = layout('inflight', 24, {
  mmapSize: u64(0, 'bytes'),
  mmapOffset: u64(8, 'where the area starts in the file'),
  queueCount: u16(16),
  queueSize: u16(18, 'entries of each queue'),
});
