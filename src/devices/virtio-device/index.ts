// Any VirtioDevice, a user's own too, to plug: QEMU's vhost-user-test-device-pci (hw/virtio/vhost-user-base.c, from
// 11.1 on; the device of that kind in 7.2 and 10.0 is not for users to create) with this process as its back end.
// It has no `vectors` property: its one MSI-X vector is too few for Linux, which takes INTx.
import { UsageError } from '../../errors.ts';
import type { VirtioDevice } from '../../virtio/device.ts';
import type { DeviceGate } from '../../virtio/queue-gate.ts';
import { vhostUserDevice } from '../vhost-user-device.ts';
import type { BackEndFaults, VhostUserDevice, VhostUserDeviceSpec } from '../vhost-user-device.ts';

export interface VirtioDeviceOptions extends BackEndFaults {
  /** What the device is and does. Its config space has the same length for its whole life. */
  readonly device: VirtioDevice;
  /** Name for messages; `virtio-<id>` unless told. */
  readonly name?: string;
  /**
   * A shell pattern under the function's sysfs directory that is there once the driver is up:
   * `virtio*` (the default) is there without a driver, `virtio*\/my_attribute` is not.
   */
  readonly ready?: string;
  /** Modules to modprobe before the device is plugged, out of the image; virtio_pci always is one of them. */
  readonly modules?: readonly string[];
}

/** A VirtioDevice to plug, behind its gates. */
export interface PluggableVirtioDevice extends VhostUserDevice {
  /**
   * QEMU 11.1.3 does not always stand gate.crash(): it ends with an assertion (memory_region_del_eventfd), at once
   * when no driver runs the queues, as it does for any back end of this device model.
   */
  readonly gate: DeviceGate;
}

/** Ids that QEMU has names for (hw/virtio/virtio.c, virtio_device_names): another ends QEMU with an assertion. */
const ID_MAX = 41;
const NAMELESS_IDS: readonly number[] = [14, 15];
/** VIRTQUEUE_MAX_SIZE of QEMU. */
const QUEUE_SIZE_MAX = 1024;
/** VHOST_USER_MAX_CONFIG_SIZE of QEMU. */
const CONFIG_BYTES_MAX = 256;

/**
 * A virtio-pci function (1af4:1040 + id, modern only) with the device's queues and config space. Needs QEMU
 * 11.1 or newer: `useMachine({ qemu: '11.1' })`. Throws UsageError for a device that QEMU cannot carry.
 */
export function virtioDevice(options: VirtioDeviceOptions): PluggableVirtioDevice {
  const { device, name = `virtio-${device.deviceId}`, ready = 'virtio*', modules = [] } = options;
  check(device);
  const { device: plugged } = vhostUserDevice({
    kind: name,
    ...CARRIES_ANY,
    guest: { modules: ['virtio_pci', ...modules], ready },
    faults: options,
    make: () => device,
  });
  return plugged;
}

/** QEMU's device model for any virtio device, and what it is to be told of this one. */
export const CARRIES_ANY: Pick<VhostUserDeviceSpec<VirtioDevice>, 'driver' | 'properties'> = {
  driver: 'vhost-user-test-device-pci',
  properties: (_, core) => ({
    'virtio-id': core.deviceId, num_vqs: core.queueCount, vq_size: core.queueSizeMax, config_size: core.config().length,
  }),
};

function check(device: VirtioDevice): void {
  const { deviceId, queueCount, queueSizeMax } = device;
  if (!Number.isInteger(deviceId) || deviceId < 1 || deviceId > ID_MAX || NAMELESS_IDS.includes(deviceId)) {
    throw new UsageError(`virtioDevice: QEMU ends with an assertion on a virtio id of ${deviceId}`, {
      hint: `It knows 1 to ${ID_MAX} but ${NAMELESS_IDS.join(' and ')}. No Linux driver claims 21, 22, 35 or 37 to 39.`,
    });
  }
  if (!Number.isInteger(queueCount) || queueCount < 1 || queueCount > 256) throw new UsageError(`virtioDevice: ${queueCount} queues are not 1 to 256`);
  if (!(queueSizeMax >= 1 && queueSizeMax <= QUEUE_SIZE_MAX && Number.isInteger(Math.log2(queueSizeMax)))) {
    throw new UsageError(`virtioDevice: a queue size of ${queueSizeMax} is not a power of two up to ${QUEUE_SIZE_MAX}`);
  }
  const config = device.config();
  if (config.length > CONFIG_BYTES_MAX) throw new UsageError(`virtioDevice: a config space of ${config.length} bytes is over ${CONFIG_BYTES_MAX}`);
}
