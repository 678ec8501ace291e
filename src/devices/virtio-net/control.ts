// The control queue (virtio 1.2, 5.1.6.5): receive modes, MAC addresses, VLANs, how many queue pairs are in
// use. QEMU's vhost-user netdev keeps this queue to itself: it is for front ends that forward it.
// Announcements, offload changes, RSS and coalescing are not offered, and answered VIRTIO_NET_ERR.
import type { DescriptorChain } from '../../virtio/virtqueue.ts';
import { netControlHeader, VIRTIO_NET_CTRL, VIRTIO_NET_ERR, VIRTIO_NET_OK } from './layout.ts';
import type { ReceiveFilter, ReceiveMode } from './receive-filter.ts';

/** What a command may change. */
export interface ControlTarget {
  readonly filter: ReceiveFilter;
  readonly queuePairs: number;
  setMac(mac: Uint8Array): void;
  setActivePairs(count: number): void;
}

/** Longest data of a command that is read: address tables of a few thousand entries. */
const DATA_BYTES_MAX = 64 * 1024;
const { RX, MAC, VLAN, MQ } = VIRTIO_NET_CTRL;
const MODES: Readonly<Record<number, ReceiveMode>> = {
  [RX.PROMISC]: 'promiscuous',
  [RX.ALLMULTI]: 'allMulticast',
  [RX.ALLUNI]: 'allUnicast',
  [RX.NOMULTI]: 'noMulticast',
  [RX.NOUNI]: 'noUnicast',
  [RX.NOBCAST]: 'noBroadcast',
};

/** Carry out the command of a request and write its answer. False: it has no place for an answer, or no header. */
export function control(chain: DescriptorChain, target: ControlTarget): boolean {
  const dataBytes = chain.readableBytes - netControlHeader.sizeBytes;
  if (dataBytes < 0 || chain.writableBytes < 1) return false;
  let done = false;
  if (dataBytes <= DATA_BYTES_MAX) {
    const bytes = new Uint8Array(chain.readableBytes);
    chain.copyOut(0, bytes);
    const command = netControlHeader.decode(bytes);
    done = carryOut(command.class, command.command, bytes.subarray(netControlHeader.sizeBytes), target);
  }
  chain.copyIn(0, Uint8Array.of(done ? VIRTIO_NET_OK : VIRTIO_NET_ERR));
  return true;
}

function carryOut(kind: number, command: number, data: Uint8Array, target: ControlTarget): boolean {
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  switch (kind) {
    case RX.class: {
      const mode = MODES[command];
      if (mode === undefined || data.length < 1) return false;
      target.filter.modes[mode] = data[0] !== 0;
      return true;
    }
    case MAC.class:
      if (command === MAC.ADDR_SET && data.length >= 6) {
        target.setMac(data.slice(0, 6));
        return true;
      }
      return command === MAC.TABLE_SET && setTables(view, data, target.filter);
    case VLAN.class:
      if (data.length < 2 || (command !== VLAN.ADD && command !== VLAN.DEL)) return false;
      return target.filter.setVlan(view.getUint16(0, true), command === VLAN.ADD);
    case MQ.class: {
      if (command !== MQ.VQ_PAIRS_SET || data.length < 2) return false;
      const pairs = view.getUint16(0, true);
      if (pairs < 1 || pairs > target.queuePairs) return false;
      target.setActivePairs(pairs);
      return true;
    }
    default:
      return false;
  }
}

/** Two tables, unicast and multicast: a u32 count and that many addresses each (5.1.6.5.2). */
function setTables(view: DataView, data: Uint8Array, filter: ReceiveFilter): boolean {
  const tables: Uint8Array[][] = [];
  let at = 0;
  for (let table = 0; table < 2; table += 1) {
    if (at + 4 > data.length) return false;
    const count = view.getUint32(at, true);
    at += 4;
    if (count > (data.length - at) / 6) return false;
    tables.push(Array.from({ length: count }, (_, i) => data.slice(at + 6 * i, at + 6 * i + 6)));
    at += 6 * count;
  }
  filter.setTables(tables[0] ?? [], tables[1] ?? []);
  return true;
}
