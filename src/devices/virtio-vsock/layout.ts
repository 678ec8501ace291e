// The socket device's wire layouts and constants (virtio 1.2, 5.10).
import { layout, u16, u32, u64 } from '../../bytes/layout.ts';

/** The host's context id (5.10.4). */
export const VMADDR_CID_HOST = 2;

/** struct virtio_vsock_config (5.10.4). */
export const vsockConfig = layout('virtio_vsock_config', 8, { guest_cid: u64(0, 'the upper 32 bits are reserved') });

/** struct virtio_vsock_hdr (5.10.6). */
export const vsockHeader = layout('virtio_vsock_hdr', 44, {
  src_cid: u64(0),
  dst_cid: u64(8),
  src_port: u32(16),
  dst_port: u32(20),
  len: u32(24, 'bytes of payload that follow'),
  type: u16(28, 'VIRTIO_VSOCK_TYPE_*'),
  op: u16(30, 'VIRTIO_VSOCK_OP_*'),
  flags: u32(32, 'VIRTIO_VSOCK_SHUTDOWN_* with OP_SHUTDOWN'),
  buf_alloc: u32(36, "bytes of the sender's receive buffer for this stream"),
  fwd_cnt: u32(40, 'bytes that the sender consumed of this stream, modulo 2^32'),
});

/** Socket types (5.10.6). */
export const VIRTIO_VSOCK_TYPE = { VIRTIO_VSOCK_TYPE_STREAM: 1, VIRTIO_VSOCK_TYPE_SEQPACKET: 2 } as const;

/** What a packet is for (5.10.6). */
export const VIRTIO_VSOCK_OP = {
  VIRTIO_VSOCK_OP_INVALID: 0,
  /** Connect. */
  VIRTIO_VSOCK_OP_REQUEST: 1,
  /** The connection is taken. */
  VIRTIO_VSOCK_OP_RESPONSE: 2,
  /** The connection is refused, or over. */
  VIRTIO_VSOCK_OP_RST: 3,
  /** The sender will receive, or send, no more. */
  VIRTIO_VSOCK_OP_SHUTDOWN: 4,
  /** Payload. */
  VIRTIO_VSOCK_OP_RW: 5,
  /** buf_alloc or fwd_cnt changed. */
  VIRTIO_VSOCK_OP_CREDIT_UPDATE: 6,
  /** Asks for an update. */
  VIRTIO_VSOCK_OP_CREDIT_REQUEST: 7,
} as const;

/** Flags of OP_SHUTDOWN (5.10.6.6). */
export const VIRTIO_VSOCK_SHUTDOWN = { F_RECEIVE: 1, F_SEND: 2, BOTH: 3 } as const;

/** The name of an operation, for messages. */
export function opName(op: number): string {
  return Object.entries(VIRTIO_VSOCK_OP).find(([, value]) => value === op)?.[0] ?? `operation ${op}`;
}
