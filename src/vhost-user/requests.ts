// Every request of the vhost-user protocol up to QEMU 11, as data: which message it is, what it carries, and
// whether this back end does it or how it says no. QEMU docs/interop/vhost-user.rst, "Front-end message
// types" and "Back-end message types"; names are its own less the VHOST_USER_ prefix. The dispatcher reads
// this table; no behaviour here.

/** Bits of GET_PROTOCOL_FEATURES ("Protocol features"). Which are offered is the session's to say. */
export const PROTOCOL_FEATURES = {
  /** GET_QUEUE_NUM is understood. */
  MQ: 0,
  /** SET_LOG_BASE comes with the log's memory file, and is answered. */
  LOG_SHMFD: 1,
  /** SEND_RARP is understood. */
  RARP: 2,
  /** NEED_REPLY is honoured. */
  REPLY_ACK: 3,
  /** NET_SET_MTU is understood. */
  NET_MTU: 4,
  /** There is a second channel, on which the back end asks (SET_BACKEND_REQ_FD). */
  BACKEND_REQ: 5,
  /** SET_VRING_ENDIAN is understood. */
  CROSS_ENDIAN: 6,
  /** Crypto sessions. */
  CRYPTO_SESSION: 7,
  /** Post-copy migration, over userfaultfd. */
  PAGEFAULT: 8,
  /** GET_CONFIG and SET_CONFIG: config space lives in the back end. */
  CONFIG: 9,
  /** The back end may send descriptors on its channel. */
  BACKEND_SEND_FD: 10,
  /** The back end may offer memory for the driver's notifications. */
  HOST_NOTIFIER: 11,
  /** GET_INFLIGHT_FD and SET_INFLIGHT_FD: what is in flight outlives the back end. */
  INFLIGHT_SHMFD: 12,
  /** RESET_DEVICE is understood. */
  RESET_DEVICE: 13,
  /** Kicks and calls as messages. */
  INBAND_NOTIFICATIONS: 14,
  /** Memory regions one by one: GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG. */
  CONFIGURE_MEM_SLOTS: 15,
  /** SET_STATUS and GET_STATUS: the device status is told. */
  STATUS: 16,
  /** Guest memory is mapped through Xen's privcmd. */
  XEN_MMAP: 17,
  /** dma-bufs shared between devices. */
  SHARED_OBJECT: 18,
  /** The back end's own state is migrated over a channel. */
  DEVICE_STATE: 19,
  /** GET_VRING_BASE may leave requests in flight, to be migrated. */
  GET_VRING_BASE_INFLIGHT: 20,
  /** Ring addresses are guest-physical. */
  GPA_ADDRESSES: 21,
  /** Shared memory regions of the device (virtio 1.2, 2.10). */
  SHMEM: 22,
} as const;
export type ProtocolFeature = keyof typeof PROTOCOL_FEATURES;

/** What follows the header. `opaque`: not looked into, at most OPAQUE_BYTES_MAX. */
export type PayloadKind =
  | 'empty' | 'u64' | 'vringState' | 'vringAddress' | 'memoryTable' | 'memoryRegion' | 'config' | 'log' | 'inflight' | 'opaque';

/**
 * How a request that this back end does not do is answered. With `reply`: that u64, the request's own answer
 * in the negative. Without: a non-zero acknowledgement when the front end asked for one (REPLY_ACK and
 * NEED_REPLY). In both cases the session goes on; with neither it ends with a ProtocolError.
 */
export interface Refusal {
  readonly why: string;
  readonly reply?: bigint;
}

export interface RequestSpec {
  readonly id: number;
  readonly payload: PayloadKind;
  /** Absent: the request is answered only with REPLY_ACK. */
  readonly reply?: PayloadKind;
  /** Most descriptors it may carry. Absent: none. */
  readonly fdCountMax?: number;
  /** The protocol feature without which it must not be sent. */
  readonly needs?: ProtocolFeature;
  /** Absent: it is implemented. */
  readonly refused?: Refusal;
}

/** Regions in one SET_MEM_TABLE, "Memory regions description"; also the most descriptors of any message. */
export const MEMORY_REGIONS_MAX = 8;

/** Requests of the front end. */
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
  /** Where pages that the device writes are marked, for migration. The specification lists its answer apart ("Communication"). */
  SET_LOG_BASE: { id: 6, payload: 'log', reply: 'u64', fdCountMax: 1, needs: 'LOG_SHMFD' },
  /** The eventfd by which the back end says that it marked pages. */
  SET_LOG_FD: { id: 7, payload: 'empty', fdCountMax: 1 },
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
  /** Announce the guest's address after a migration. */
  SEND_RARP: { id: 19, payload: 'u64', needs: 'RARP', refused: { why: 'no network of this host is behind the device' } },
  /** The MTU that the guest was told. */
  NET_SET_MTU: { id: 20, payload: 'u64', needs: 'NET_MTU', refused: { why: 'a device tells its MTU in its config space' } },
  /** The socket on which the back end may ask the front end. */
  SET_BACKEND_REQ_FD: { id: 21, payload: 'empty', fdCountMax: 1, needs: 'BACKEND_REQ' },
  /** An entry of the device's IOTLB. */
  IOTLB_MSG: { id: 22, payload: 'opaque', reply: 'u64', refused: { why: 'VIRTIO_F_ACCESS_PLATFORM is not offered: there is no IOTLB', reply: 1n } },
  /** A legacy ring's byte order. */
  SET_VRING_ENDIAN: { id: 23, payload: 'vringState', needs: 'CROSS_ENDIAN', refused: { why: 'rings are little-endian (VIRTIO_F_VERSION_1)' } },
  /** Part of config space. */
  GET_CONFIG: { id: 24, payload: 'config', reply: 'config', needs: 'CONFIG' },
  /** The driver wrote config space. */
  SET_CONFIG: { id: 25, payload: 'config', needs: 'CONFIG' },
  /** Begin a crypto session. */
  CREATE_CRYPTO_SESSION: { id: 26, payload: 'opaque', reply: 'opaque', needs: 'CRYPTO_SESSION', refused: { why: 'there is no crypto device' } },
  /** End a crypto session. */
  CLOSE_CRYPTO_SESSION: { id: 27, payload: 'u64', needs: 'CRYPTO_SESSION', refused: { why: 'there is no crypto device' } },
  /** Post-copy may come: open a userfaultfd. */
  POSTCOPY_ADVISE: { id: 28, payload: 'empty', reply: 'opaque', needs: 'PAGEFAULT', refused: { why: 'post-copy is not supported' } },
  /** Post-copy has begun. */
  POSTCOPY_LISTEN: { id: 29, payload: 'empty', needs: 'PAGEFAULT', refused: { why: 'post-copy is not supported' } },
  /** Post-copy is over. */
  POSTCOPY_END: { id: 30, payload: 'empty', reply: 'u64', needs: 'PAGEFAULT', refused: { why: 'post-copy is not supported', reply: 1n } },
  /** A fresh memory file in which the back end notes what is in flight. */
  GET_INFLIGHT_FD: { id: 31, payload: 'inflight', reply: 'inflight', needs: 'INFLIGHT_SHMFD' },
  /** That file again: to note in, and to go on from. */
  SET_INFLIGHT_FD: { id: 32, payload: 'inflight', fdCountMax: 1, needs: 'INFLIGHT_SHMFD' },
  /** The socket of the vhost-user-gpu protocol. */
  GPU_SET_SOCKET: { id: 33, payload: 'empty', fdCountMax: 1, refused: { why: 'there is no GPU' } },
  /** Disable all rings and reset the device. */
  RESET_DEVICE: { id: 34, payload: 'empty', needs: 'RESET_DEVICE' },
  /** A kick as a message. */
  VRING_KICK: { id: 35, payload: 'vringState', needs: 'INBAND_NOTIFICATIONS', refused: { why: 'kicks come by eventfd' } },
  /** The most memory regions. */
  GET_MAX_MEM_SLOTS: { id: 36, payload: 'empty', reply: 'u64', needs: 'CONFIGURE_MEM_SLOTS' },
  /** One region more. */
  ADD_MEM_REG: { id: 37, payload: 'memoryRegion', fdCountMax: 1, needs: 'CONFIGURE_MEM_SLOTS' },
  /** One region less. The specification lets it carry a descriptor, which is to be closed: QEMU before 8.0 sends one. */
  REM_MEM_REG: { id: 38, payload: 'memoryRegion', fdCountMax: 1, needs: 'CONFIGURE_MEM_SLOTS' },
  /** The virtio device status (virtio 1.2, 2.1) that the driver wrote. */
  SET_STATUS: { id: 39, payload: 'u64', needs: 'STATUS' },
  /** The device status as the back end has it. */
  GET_STATUS: { id: 40, payload: 'empty', reply: 'u64', needs: 'STATUS' },
  /** A dma-buf of this device. */
  GET_SHARED_OBJECT: { id: 41, payload: 'opaque', reply: 'opaque', needs: 'SHARED_OBJECT', refused: { why: 'no object is shared' } },
  /** The channel for the back end's own state. Its answer: an error, and bit 8: no descriptor. */
  SET_DEVICE_STATE_FD: { id: 42, payload: 'opaque', reply: 'u64', fdCountMax: 1, needs: 'DEVICE_STATE', refused: { why: 'the device has no state of its own to move', reply: 0x101n } },
  /** Whether that state has gone over. */
  CHECK_DEVICE_STATE: { id: 43, payload: 'empty', reply: 'u64', needs: 'DEVICE_STATE', refused: { why: 'the device has no state of its own to move', reply: 1n } },
  /** The device's shared memory regions. */
  GET_SHMEM_CONFIG: { id: 44, payload: 'empty', reply: 'opaque', needs: 'SHMEM', refused: { why: 'the device has no shared memory regions' } },
} as const satisfies Record<string, RequestSpec>;

export type RequestName = keyof typeof REQUESTS;
/** Those of them that the session does. */
export type ImplementedName = { [N in RequestName]: (typeof REQUESTS)[N] extends { refused: Refusal } ? never : N }[RequestName];

/** What a message of no number in the table is taken for. */
export const UNKNOWN_REQUEST = {
  id: -1, payload: 'opaque', fdCountMax: MEMORY_REGIONS_MAX, refused: { why: 'this back end does not know it' },
} as const satisfies RequestSpec;

/**
 * Requests of the back end, on the channel of SET_BACKEND_REQ_FD. Of these only CONFIG_CHANGE_MSG is ever sent;
 * `refused` says why the others are not.
 */
export const BACKEND_REQUESTS = {
  IOTLB_MSG: { id: 1, payload: 'opaque', refused: { why: 'there is no IOTLB' } },
  /** Config space changed: the front end reads it again and interrupts the driver. */
  CONFIG_CHANGE_MSG: { id: 2, payload: 'empty', needs: 'BACKEND_REQ' },
  VRING_HOST_NOTIFIER_MSG: { id: 3, payload: 'opaque', fdCountMax: 1, needs: 'HOST_NOTIFIER', refused: { why: 'the device has no doorbell of its own' } },
  VRING_CALL: { id: 4, payload: 'vringState', needs: 'INBAND_NOTIFICATIONS', refused: { why: 'interrupts go by eventfd' } },
  VRING_ERR: { id: 5, payload: 'vringState', needs: 'INBAND_NOTIFICATIONS', refused: { why: 'errors go by eventfd' } },
  SHARED_OBJECT_ADD: { id: 6, payload: 'opaque', needs: 'SHARED_OBJECT', refused: { why: 'no object is shared' } },
  SHARED_OBJECT_REMOVE: { id: 7, payload: 'opaque', needs: 'SHARED_OBJECT', refused: { why: 'no object is shared' } },
  SHARED_OBJECT_LOOKUP: { id: 8, payload: 'opaque', needs: 'SHARED_OBJECT', refused: { why: 'no object is looked for' } },
  SHMEM_MAP: { id: 9, payload: 'opaque', fdCountMax: 1, needs: 'SHMEM', refused: { why: 'the device has no shared memory regions' } },
  SHMEM_UNMAP: { id: 10, payload: 'opaque', needs: 'SHMEM', refused: { why: 'the device has no shared memory regions' } },
} as const satisfies Record<string, RequestSpec>;
