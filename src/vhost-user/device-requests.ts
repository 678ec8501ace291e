// Requests about the device as a whole: what is negotiated, its status and reset, config space, and the
// channel on which the back end asks.
import { ProtocolError } from '../errors.ts';
import { featureMask, hasFeature, RING_FEATURES, VIRTIO_F } from '../virtio/features.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { BackendChannel } from './backend-channel.ts';
import { CONFIG_FLAG_MIGRATION, F_LOG_ALL, F_PROTOCOL_FEATURES } from './protocol.ts';
import { PROTOCOL_FEATURES } from './requests.ts';
import type { Handlers, SessionState } from './session-state.ts';

/** DEVICE_NEEDS_RESET of the device status (virtio 1.2, 2.1). */
const DEVICE_NEEDS_RESET = 0x40;
/** Bits of the feature word that are vhost's own, not the driver's. */
const TRANSPORT_BITS = featureMask(F_PROTOCOL_FEATURES, F_LOG_ALL);

type DeviceRequests = Pick<Handlers,
  | 'GET_FEATURES' | 'SET_FEATURES' | 'GET_PROTOCOL_FEATURES' | 'SET_PROTOCOL_FEATURES' | 'SET_OWNER' | 'RESET_OWNER'
  | 'SET_BACKEND_REQ_FD' | 'GET_CONFIG' | 'SET_CONFIG' | 'RESET_DEVICE' | 'SET_STATUS' | 'GET_STATUS'>;

/** The virtio features among the bits of a SET_FEATURES. */
export function virtioFeatures(features: bigint): bigint {
  return features & ~TRANSPORT_BITS;
}

function offeredFeatures(device: VirtioDevice): bigint {
  return device.features | TRANSPORT_BITS | (device.ringFeatures ?? RING_FEATURES) | featureMask(VIRTIO_F.VIRTIO_F_VERSION_1);
}

function offeredProtocolFeatures(device: VirtioDevice): bigint {
  const { MQ, LOG_SHMFD, REPLY_ACK, INFLIGHT_SHMFD, RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS, CONFIG, BACKEND_REQ } = PROTOCOL_FEATURES;
  // QEMU warns of config space that its device model does not fetch (rng).
  const config = device.config().length > 0 ? [CONFIG, BACKEND_REQ] : [];
  return featureMask(MQ, LOG_SHMFD, REPLY_ACK, INFLIGHT_SHMFD, RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS, ...config);
}

export function deviceRequests(state: SessionState): DeviceRequests {
  const { device, rings } = state;

  const reset = async (why: string): Promise<void> => {
    await rings.stopAll(why);
    state.needsReset = false;
    device.reset?.();
  };

  return {
    GET_FEATURES: () => offeredFeatures(device),
    SET_FEATURES: ({ payload }) => {
      refuseUnoffered('SET_FEATURES', payload, offeredFeatures(device));
      const before = state.features;
      state.features = payload;
      state.dirtyLog.enabled = hasFeature(payload, F_LOG_ALL);
      // In the middle of a run only the log is switched: the driver negotiates nothing then.
      if (rings.running.length > 0 && virtioFeatures(before) === virtioFeatures(payload)) return;
      device.negotiated?.(virtioFeatures(payload));
    },
    GET_PROTOCOL_FEATURES: () => offeredProtocolFeatures(device),
    SET_PROTOCOL_FEATURES: ({ payload }) => {
      refuseUnoffered('SET_PROTOCOL_FEATURES', payload, offeredProtocolFeatures(device));
      state.protocolFeatures = payload;
    },
    SET_OWNER: () => undefined,
    RESET_OWNER: () => rings.disable(),
    SET_BACKEND_REQ_FD: ({ fds }) => {
      const fd = fds.take(0);
      if (fd === undefined) throw new ProtocolError('vhost-user: SET_BACKEND_REQ_FD without a descriptor');
      const channel = new BackendChannel({
        fd,
        acknowledges: () => hasFeature(state.protocolFeatures, PROTOCOL_FEATURES.REPLY_ACK),
        onError: (error) => state.fail(error),
        log: (line) => state.log(line),
      });
      state.channel?.close();
      state.channel = channel;
    },
    GET_CONFIG: ({ payload: { offset, flags, bytes } }) => {
      // The front end's structure may be longer than the device's: what is not there reads 0.
      const answer = new Uint8Array(bytes.length);
      answer.set(device.config().subarray(offset, offset + bytes.length));
      return { offset, flags, bytes: answer };
    },
    SET_CONFIG: ({ payload: { offset, flags, bytes } }) => {
      const refuse = (why: string): 1 => {
        state.log(`SET_CONFIG of ${bytes.length} bytes at ${offset} was refused: ${why}`);
        return 1;
      };
      if (device.writeConfig === undefined) return refuse('the device has no config space that is written');
      if (flags > CONFIG_FLAG_MIGRATION) return refuse(`flags ${flags} are not known`);
      if (offset + bytes.length > device.config().length) return refuse(`config space has ${device.config().length} bytes`);
      try {
        device.writeConfig(offset, bytes);
        return undefined;
      } catch (error) {
        state.deviceFailed(error);
        return refuse('the device failed');
      }
    },
    RESET_DEVICE: async () => {
      await reset('RESET_DEVICE');
      // "All internal device state": what was in flight is forgotten, too.
      state.status = 0;
      state.inflightArea?.close();
      state.inflightArea = undefined;
    },
    SET_STATUS: async ({ payload }) => {
      state.status = Number(payload & 0xffn);
      // QEMU says so when it stops the machine too, and 7.2 before it asks for the rings' bases: they are kept.
      if (state.status === 0) await reset('a status of 0');
    },
    GET_STATUS: () => BigInt(state.status | (state.needsReset ? DEVICE_NEEDS_RESET : 0)),
  };
}

function refuseUnoffered(name: string, accepted: bigint, offered: bigint): void {
  const extra = accepted & ~offered;
  if (extra !== 0n) {
    throw new ProtocolError(`vhost-user: ${name} accepts 0x${extra.toString(16)}, which was not offered (0x${offered.toString(16)} was)`, { sent: offered, received: accepted });
  }
}
