// Requests about rings: what they are made of, when they run, and what of them was in flight.
import { ProtocolError } from '../errors.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { hasFeature, VIRTIO_F } from '../virtio/features.ts';
import { VIRTIO_ID } from '../virtio/ids.ts';
import { QUEUE_SIZE_MAX } from '../virtio/split-ring.ts';
import type { Request } from './connection.ts';
import { createInflightFile, InflightArea } from './inflight.ts';
import { F_PROTOCOL_FEATURES, VRING_F_LOG, VRING_INDEX_MASK, VRING_NOFD } from './protocol.ts';
import type { Ring } from './ring.ts';
import { ReplyWithFd } from './session-state.ts';
import type { Handlers, SessionState } from './session-state.ts';

type RingRequests = Pick<Handlers,
  | 'GET_QUEUE_NUM' | 'SET_VRING_NUM' | 'SET_VRING_BASE' | 'SET_VRING_ADDR' | 'SET_VRING_KICK' | 'SET_VRING_CALL' | 'SET_VRING_ERR'
  | 'SET_VRING_ENABLE' | 'GET_VRING_BASE' | 'GET_INFLIGHT_FD' | 'SET_INFLIGHT_FD'>;

export function ringRequests(state: SessionState): RingRequests {
  const { device, rings } = state;
  const packed = (): boolean => hasFeature(state.features, VIRTIO_F.VIRTIO_F_RING_PACKED);

  /** The ring and the descriptor of SET_VRING_KICK, _CALL and _ERR; the flag and the descriptor must agree. */
  const vringFd = ({ name, payload, fds }: Request<'SET_VRING_KICK' | 'SET_VRING_CALL' | 'SET_VRING_ERR'>): { ring: Ring; fd: number | undefined } => {
    const value = Number(payload & 0xffffffffn);
    if (payload > BigInt(VRING_NOFD | VRING_INDEX_MASK)) throw new ProtocolError(`vhost-user: ${name} with unknown bits: 0x${payload.toString(16)}`);
    const absent = (value & VRING_NOFD) !== 0;
    if (absent !== (fds.count === 0)) {
      throw new ProtocolError(`vhost-user: ${name} of ring ${value & VRING_INDEX_MASK} with ${fds.count} descriptors and the flag that there is ${absent ? 'none' : 'one'}`);
    }
    return { ring: rings.at(value & VRING_INDEX_MASK), fd: absent ? undefined : fds.take(0) };
  };

  return {
    GET_QUEUE_NUM: () => BigInt(queueNum(device)),
    SET_VRING_NUM: ({ payload: { index, num } }) => rings.at(index).setSize(num),
    SET_VRING_BASE: ({ payload: { index, num } }) => rings.at(index).setBase(num),
    SET_VRING_ADDR: ({ payload: { index, flags, descriptor, available, used, log } }) => {
      const marks = (flags & VRING_F_LOG) !== 0;
      if (marks && log > BigInt(Number.MAX_SAFE_INTEGER)) throw new ProtocolError(`vhost-user: SET_VRING_ADDR of ring ${index} logs at 0x${log.toString(16)}`);
      rings.at(index).setAddresses({ descriptor, available, used, log: marks ? Number(log) : undefined });
    },
    SET_VRING_KICK: (request) => {
      const { ring, fd } = vringFd(request);
      if (fd === undefined) throw new ProtocolError('vhost-user: SET_VRING_KICK without a descriptor: this back end does not poll rings');
      if (!hasFeature(state.features, F_PROTOCOL_FEATURES)) ring.enable(true);
      ring.setKick(fd);
    },
    SET_VRING_CALL: (request) => {
      const { ring, fd } = vringFd(request);
      ring.setCall(fd);
    },
    SET_VRING_ERR: (request) => {
      const { ring, fd } = vringFd(request);
      ring.setError(fd);
    },
    SET_VRING_ENABLE: ({ payload: { index, num } }) => {
      if (num > 1) throw new ProtocolError(`vhost-user: SET_VRING_ENABLE of ring ${index} to ${num}, not 0 or 1`);
      rings.at(index).enable(num === 1);
    },
    GET_VRING_BASE: async ({ payload: { index } }) => ({ index, num: await rings.stop(rings.at(index), 'GET_VRING_BASE') }),
    GET_INFLIGHT_FD: ({ payload: { queueCount, queueSize } }) => {
      if (queueCount < 1 || queueCount > rings.count || queueSize < 1 || queueSize > QUEUE_SIZE_MAX) {
        throw new ProtocolError(`vhost-user: GET_INFLIGHT_FD for ${queueCount} queues of ${queueSize}: the device has ${rings.count} of at most ${QUEUE_SIZE_MAX}`);
      }
      const { fd, description } = createInflightFile(queueCount, queueSize, packed());
      return new ReplyWithFd(description, fd);
    },
    SET_INFLIGHT_FD: ({ payload, fds }) => {
      const fd = fds.peek(0);
      if (fd === undefined) throw new ProtocolError('vhost-user: SET_INFLIGHT_FD without a descriptor', { received: payload });
      if (rings.running.length > 0) throw new ProtocolError('vhost-user: SET_INFLIGHT_FD while rings run');
      const area = new InflightArea(fd, payload, packed());
      state.inflightArea?.close();
      state.inflightArea = area;
    },
  };
}

/**
 * "How many queues the back-end supports": of a network device QEMU takes the answer for queue pairs, and refuses a
 * netdev with more of them (net/vhost-user.c, vhost_user_start, to hw/net/vhost_net.c, vhost_net_get_max_queues).
 * DPDK's back end answers pairs too (lib/vhost/socket.c, rte_vhost_driver_get_queue_num); its virtio-user does not
 * ask. A control queue, which a front end has to forward on purpose, does not count.
 */
function queueNum({ deviceId, queueCount }: VirtioDevice): number {
  return deviceId === VIRTIO_ID.NET ? Math.floor(queueCount / 2) : queueCount;
}
