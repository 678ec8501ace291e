// The network device's wire layouts and constants (virtio 1.2, 5.1). Segmentation, RSS and hash reports are
// not offered, and their fields not here.
import { bytes, layout, u16, u8 } from '../../bytes/layout.ts';

/** Feature bits (5.1.3), those that this device can offer. */
export const VIRTIO_NET_F = {
  /** The device completes checksums that the driver left partial. */
  VIRTIO_NET_F_CSUM: 0,
  /** config.mtu is valid: the largest MTU. */
  VIRTIO_NET_F_MTU: 3,
  /** config.mac is valid. */
  VIRTIO_NET_F_MAC: 5,
  /** The driver takes a received packet in several buffers. */
  VIRTIO_NET_F_MRG_RXBUF: 15,
  /** config.status is valid. */
  VIRTIO_NET_F_STATUS: 16,
  /** There is a control queue. */
  VIRTIO_NET_F_CTRL_VQ: 17,
  /** Receive modes through the control queue. */
  VIRTIO_NET_F_CTRL_RX: 18,
  /** VLAN filters through the control queue. */
  VIRTIO_NET_F_CTRL_VLAN: 19,
  /** Further receive modes through the control queue. */
  VIRTIO_NET_F_CTRL_RX_EXTRA: 20,
  /** Several queue pairs, with automatic steering of received packets. */
  VIRTIO_NET_F_MQ: 22,
  /** The MAC address is set through the control queue. */
  VIRTIO_NET_F_CTRL_MAC_ADDR: 23,
} as const;

/** struct virtio_net_config (5.1.4), to the last field that this device has. */
export const netConfig = layout('virtio_net_config', 12, {
  mac: bytes(0, 6),
  status: u16(6, 'VIRTIO_NET_S_*'),
  max_virtqueue_pairs: u16(8, 'with MQ'),
  mtu: u16(10, 'with MTU'),
});

/** config.status (5.1.4). */
export const VIRTIO_NET_S_LINK_UP = 1;

/** struct virtio_net_hdr (5.1.6): before every packet. */
export const netHeader = layout('virtio_net_hdr', 12, {
  flags: u8(0, 'VIRTIO_NET_HDR_F_*'),
  gso_type: u8(1, 'VIRTIO_NET_HDR_GSO_*'),
  hdr_len: u16(2),
  gso_size: u16(4),
  csum_start: u16(6, 'where to begin summing'),
  csum_offset: u16(8, 'where to put the sum, from csum_start'),
  num_buffers: u16(10, 'buffers of a received packet; absent on legacy devices without MRG_RXBUF'),
});
export const HEADER_BYTES = netHeader.sizeBytes;
/** Without num_buffers: neither VERSION_1 nor MRG_RXBUF (5.1.6.1). */
export const LEGACY_HEADER_BYTES = 10;

/** flags of the header: the checksum at csum_start + csum_offset is partial. */
export const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;

/** A command of the control queue: class and command (5.1.6.5); its data follow, and one byte for the answer. */
export const netControlHeader = layout('virtio_net_ctrl', 2, { class: u8(0), command: u8(1) });

/** Classes and their commands (5.1.6.5.1 to 5.1.6.5.5). */
export const VIRTIO_NET_CTRL = {
  RX: { class: 0, PROMISC: 0, ALLMULTI: 1, ALLUNI: 2, NOMULTI: 3, NOUNI: 4, NOBCAST: 5 },
  MAC: { class: 1, TABLE_SET: 0, ADDR_SET: 1 },
  VLAN: { class: 2, ADD: 0, DEL: 1 },
  MQ: { class: 4, VQ_PAIRS_SET: 0 },
} as const;
/** The answer. */
export const VIRTIO_NET_OK = 0;
export const VIRTIO_NET_ERR = 1;

/** An Ethernet header without a VLAN tag. */
export const ETHERNET_HEADER_BYTES = 14;
export const VLAN_TAG_BYTES = 4;
/** The largest MTU that a driver may set (5.1.4.1). */
export const MTU_MAX = 65535;
export const MTU_MIN = 68;
