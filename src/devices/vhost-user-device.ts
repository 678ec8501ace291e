// A virtio device core made pluggable over vhost-user: the part that every device of this folder shares. Puts the
// gates before it, keeps the one place where it is plugged, and gives it that place's log. What the
// device does, and what a test may ask of it, is its own folder's.
import { UsageError } from '../errors.ts';
import type { AttachSite, Attachment, Device, PropertyValue } from '../qemu/attachment.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { steer } from '../virtio/queue-gate.ts';
import type { DeviceGate, QueueGate } from '../virtio/queue-gate.ts';
import { attachVhostUser } from './vhost-user-attachment.ts';

/** Faults that any device over vhost-user can be made with. */
export interface BackEndFaults {
  /** Complete each request this many milliseconds later, 0 (the default) to 600,000. */
  readonly latencyMs?: number;
  /** 'connection': QEMU's connection is never answered. 'requests': no request is completed, until queue(i).release(). */
  readonly hang?: 'connection' | 'requests';
}

export interface VhostUserDeviceSpec<D extends VirtioDevice> {
  /** The device's kind, and its name in messages: `virtio-input`. */
  readonly kind: string;
  /** Who is named in UsageErrors, when it is not the kind: `virtioRng`. */
  readonly maker?: string;
  /** QEMU's device model: `vhost-user-input-pci`. */
  readonly driver: string;
  /** Its properties, less `chardev`. */
  readonly properties: Readonly<Record<string, PropertyValue>>;
  readonly guest: NonNullable<Device['guest']>;
  readonly faults: BackEndFaults;
  /** Make the core; `log` adds to the device's log while it is plugged. */
  make(log: (line: string) => void): D;
}

/** What every device over vhost-user has for a test. */
export interface VhostUserDevice extends Device {
  /** Hold, delay or falsify what a queue does, and its counts. UsageError when there is no such queue. */
  queue(index: number): QueueGate;
}

/** Throws UsageError for faults that there are not. */
export function vhostUserDevice<D extends VirtioDevice>(spec: VhostUserDeviceSpec<D>): {
  readonly core: D;
  readonly device: VhostUserDevice;
  /** The gate before the device as a whole, for those that show it. */
  readonly gate: DeviceGate;
} {
  const { kind, maker = kind, driver, properties, guest, faults: { latencyMs = 0, hang } } = spec;
  if (!(latencyMs >= 0 && latencyMs <= 600_000)) throw new UsageError(`${maker}: latencyMs ${latencyMs} is not in 0 to 600000`);
  if (hang !== undefined && hang !== 'connection' && hang !== 'requests') {
    throw new UsageError(`${maker}: hang is ${JSON.stringify(hang)}`, { hint: 'it is \'connection\' or \'requests\'' });
  }
  let site: AttachSite | undefined;
  const core = spec.make((line) => site?.log(line));
  const steered = steer(core, { latencyMs });
  if (hang === 'requests') for (let index = 0; index < core.queueCount; index += 1) steered.queue(index).hold();
  const device: VhostUserDevice = {
    kind,
    needsSharedMemory: true,
    guest,
    queue: (index) => steered.queue(index),
    async attach(at): Promise<Attachment> {
      if (site !== undefined) throw new UsageError(`${maker}: this device is plugged already`, { hint: 'Unplug it first, or make another.' });
      site = at;
      try {
        return await attachVhostUser(at, { driver, properties, steered, mute: hang === 'connection', onDetached: () => { site = undefined; } });
      } catch (error) {
        site = undefined;
        throw error;
      }
    },
  };
  return { core, device, gate: steered.gate };
}
