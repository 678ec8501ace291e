// The vhost-user protocol as data: messages, feature bits, payload layouts. QEMU docs/interop/vhost-user.rst;
// names are its own less the VHOST_USER_ prefix. Only what a split-ring back end without migration,
// IOMMU and post-copy meets. No behaviour.
import { layout, u32, u64 } from '../bytes/layout.ts';

/** Bits of the header's flags ("Header"). */
export const HEADER_FLAGS = {
  /** The lower two bits: the version, always 1. */
  VERSION_MASK: 0x3,
  VERSION: 0x1,
  /** A reply of the back end. */
  REPLY: 0x4,
  /** The sender wants an acknowledgement (REPLY_ACK). */
  NEED_REPLY: 0x8,
} as const;

/** What follows the header. */
export type PayloadKind = 'empty' | 'u64' | 'vringState' | 'vringAddress' | 'memoryTable' | 'config';

export interface RequestSpec {
  readonly id: number;
  readonly payload: PayloadKind;
  /** Absent: the request is answered only with REPLY_ACK. */
  readonly reply?: PayloadKind;
  /** Most descriptors it may carry. Absent: none. */
  readonly fdCountMax?: number;
  /** The protocol feature without which it must not be sent. */
  readonly needs?: keyof typeof PROTOCOL_FEATURES;
}

/** Regions in one SET_MEM_TABLE, "Memory regions description". */
export const MEMORY_REGIONS_MAX = 8;

/** Bits of GET_PROTOCOL_FEATURES ("Protocol features"). */
export const PROTOCOL_FEATURES = {
  /** GET_QUEUE_NUM is understood. */
  MQ: 0,
  /** NEED_REPLY is honoured. */
  REPLY_ACK: 3,
  /** There is a second channel, on which the back end asks (SET_BACKEND_REQ_FD). */
  BACKEND_REQ: 5,
  /** GET_CONFIG and SET_CONFIG: config space lives in the back end. */
  CONFIG: 9,
  /** RESET_DEVICE is understood. */
  RESET_DEVICE: 13,
  /** SET_STATUS and GET_STATUS: the device status is told. */
  STATUS: 16,
} as const;

/** Feature bit of GET_FEATURES that stands for the protocol features; no virtio device has it. */
export const F_PROTOCOL_FEATURES = 30;

/** Requests of the front end ("Front-end message types"). */
export const REQUESTS = {
  /** The feature bits offered. */
  GET_FEATURES: { id: 1, payload: 'empty', reply: 'u64' },
  /** The feature bits that driver and front end accepted. */
  SET_FEATURES: { id: 2, payload: 'u64' },
  /** The sender owns this session: its start. */
  SET_OWNER: { id: 3, payload: 'empty' },
  /** Deprecated: disable all rings. */
  RESET_OWNER: { id: 4, payload: 'empty' },
  /** Guest memory, a descriptor a region. */
  SET_MEM_TABLE: { id: 5, payload: 'memoryTable', fdCountMax: MEMORY_REGIONS_MAX },
  /** A ring's number of entries. */
  SET_VRING_NUM: { id: 8, payload: 'vringState' },
  /** Where a ring's parts lie, in the front end's own addresses. */
  SET_VRING_ADDR: { id: 9, payload: 'vringAddress' },
  /** The avail index to go on from. */
  SET_VRING_BASE: { id: 10, payload: 'vringState' },
  /** Stop the ring; the avail index it came to. */
  GET_VRING_BASE: { id: 11, payload: 'vringState', reply: 'vringState' },
  /** The eventfd by which the driver says that buffers are available. Starts the ring. */
  SET_VRING_KICK: { id: 12, payload: 'u64', fdCountMax: 1 },
  /** The eventfd by which the device says that buffers were used. */
  SET_VRING_CALL: { id: 13, payload: 'u64', fdCountMax: 1 },
  /** The eventfd by which the device says that the ring is broken. */
  SET_VRING_ERR: { id: 14, payload: 'u64', fdCountMax: 1 },
  /** The protocol features offered. */
  GET_PROTOCOL_FEATURES: { id: 15, payload: 'empty', reply: 'u64' },
  /** The protocol features accepted. */
  SET_PROTOCOL_FEATURES: { id: 16, payload: 'u64' },
  /** The most queues the device has. */
  GET_QUEUE_NUM: { id: 17, payload: 'empty', reply: 'u64', needs: 'MQ' },
  /** Enable (1) or disable (0) a ring. */
  SET_VRING_ENABLE: { id: 18, payload: 'vringState' },
  /** The socket on which the back end may ask the front end. */
  SET_BACKEND_REQ_FD: { id: 21, payload: 'empty', fdCountMax: 1, needs: 'BACKEND_REQ' },
  /** Part of config space. */
  GET_CONFIG: { id: 24, payload: 'config', reply: 'config', needs: 'CONFIG' },
  /** The driver wrote config space. */
  SET_CONFIG: { id: 25, payload: 'config', needs: 'CONFIG' },
  /** Disable all rings and reset the device. */
  RESET_DEVICE: { id: 34, payload: 'empty', needs: 'RESET_DEVICE' },
  /** The virtio device status (virtio 1.2, 2.1) that the driver wrote. */
  SET_STATUS: { id: 39, payload: 'u64', needs: 'STATUS' },
  /** The device status as the back end has it. */
  GET_STATUS: { id: 40, payload: 'empty', reply: 'u64', needs: 'STATUS' },
} as const satisfies Record<string, RequestSpec>;

export type RequestName = keyof typeof REQUESTS;

/** Requests of the back end, on the channel of SET_BACKEND_REQ_FD ("Back-end message types"). */
export const BACKEND_REQUESTS = {
  /** Config space changed: the front end reads it again and interrupts the driver. */
  CONFIG_CHANGE_MSG: { id: 2, payload: 'empty' },
} as const satisfies Record<string, RequestSpec>;

/** SET_VRING_KICK, _CALL and _ERR: the ring's index is in the low byte of the u64. */
export const VRING_INDEX_MASK = 0xff;
/** SET_VRING_KICK, _CALL and _ERR: no descriptor comes with it. */
export const VRING_NOFD = 0x100;

/** Config space that one message carries at most (QEMU hw/virtio/vhost-user.c, VHOST_USER_MAX_CONFIG_SIZE). */
export const CONFIG_SIZE_MAX = 256;

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

export const configHeader = layout('config space', 12, {
  offset: u32(0, 'in config space'),
  size: u32(4, 'bytes that follow'),
  flags: u32(8, '0: writable fields, 1: live migration'),
});
