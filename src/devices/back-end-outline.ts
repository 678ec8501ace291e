// A virtio device of ours as QEMU sees it, in JSON; and one that is made of that: QEMU can be given it in the place of a
// back end that is gone, and the guest's requests to it are never answered.
import { ProtocolError } from '../errors.ts';
import type { BackEndOutline } from '../qemu/attachment.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { RING_FEATURES } from '../virtio/features.ts';

/** Its config space as the driver reads it now. */
export function outlineOf(device: VirtioDevice): BackEndOutline {
  const { deviceId, features, ringFeatures = RING_FEATURES, queueCount, queueSizeMax } = device;
  return { deviceId, features: `0x${features.toString(16)}`, ringFeatures: `0x${ringFeatures.toString(16)}`, queueCount, queueSizeMax, config: Buffer.from(device.config()).toString('hex') };
}

/** @throws ProtocolError for what is no outline */
export function deviceOfOutline(outline: BackEndOutline): VirtioDevice {
  const { deviceId, features, ringFeatures, queueCount, queueSizeMax, config } = outline;
  if (![deviceId, queueCount, queueSizeMax].every((one) => Number.isInteger(one) && one > 0 && one <= 0x10000) ||
    ![features, ringFeatures].every((one) => /^0x[0-9a-f]{1,16}$/.test(one)) || !/^([0-9a-f]{2})*$/.test(config)) {
    throw new ProtocolError(`this is no outline of a virtio device: ${JSON.stringify(outline)}`);
  }
  const bytes = Buffer.from(config, 'hex');
  return {
    deviceId, queueCount, queueSizeMax, features: BigInt(features), ringFeatures: BigInt(ringFeatures),
    config: () => bytes,
    process: () => undefined,
  };
}
