// A virtio device core made pluggable over vhost-user: the part that every device of this folder shares. Puts the
// gates before it, keeps the one place where it is plugged, opens and closes it there, and gives it that place's
// log. What the device does, and what a test may ask of it, is its own folder's.
import { UsageError } from '../errors.ts';
import type { AttachSite, Attachment, Device, PropertyValue } from '../qemu/attachment.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { steer } from '../virtio/queue-gate.ts';
import type { DeviceGate, QueueGate } from '../virtio/queue-gate.ts';
import { attachVhostUser } from './vhost-user-attachment.ts';
import { attachInWorker, type DeviceThread } from './worker-attachment.ts';

/** Faults that any device over vhost-user can be made with. */
export interface BackEndFaults {
  /** Complete each request this many milliseconds later, 0 (the default) to 600,000. */
  readonly latencyMs?: number;
  /** 'connection': QEMU's connection is never answered. 'requests': no request is completed, until queue(i).release(). */
  readonly hang?: 'connection' | 'requests';
}

/** For the devices whose back end QEMU can lose and find again. */
export interface ReconnectOptions {
  /** QEMU connects again to the back end when it died: `gate.crash()`, then `gate.restart()`. */
  readonly reconnect?: boolean;
}

type Properties = Readonly<Record<string, PropertyValue>>;

export interface VhostUserDeviceSpec<D extends VirtioDevice> extends ReconnectOptions {
  /** The device's kind, and its name in messages: `virtio-input`. */
  readonly kind: string;
  /** Who is named in UsageErrors, when it is not the kind: `virtioRng`. */
  readonly maker?: string;
  /** QEMU's device model: `vhost-user-input-pci`. */
  readonly driver: string;
  /** Its properties, less `chardev` or `netdev`; asked for at each plug when they depend on where that is, or on the core. */
  readonly properties: Properties | ((site: AttachSite, core: VirtioDevice) => Properties);
  /** A network card has its chardev through a netdev: this one's properties, less `chardev`. */
  readonly netdev?: Properties;
  readonly guest: NonNullable<Device['guest']>;
  readonly faults: BackEndFaults;
  /** Make the core. `log` adds to the device's log, `fail` ends what waits on the machine; both while it is plugged. */
  make(log: (line: string) => void, fail: (error: Error) => void): D;
  /** It is about to be plugged. If this throws it is not, and closed() is not called. */
  open?(): Promise<void> | void;
  /** The device lives in a thread of its own: what `make` made is not served, `open` not called, and no gate is there. */
  readonly thread?: DeviceThread | undefined;
  /** It was unplugged, or could not be plugged; the core is closed (VirtioDevice.close) before. */
  closed?(): void;
}

/** What every device over vhost-user has for a test. */
export interface VhostUserDevice extends Device {
  /** Hold, delay or falsify what a queue does, and its counts. UsageError when there is no such queue. */
  queue(index: number): QueueGate;
  /** Config changes, NEEDS_RESET, a crash of the back end and its return. */
  readonly gate: DeviceGate;
}

/** Throws UsageError for faults that there are not. */
export function vhostUserDevice<D extends VirtioDevice>(spec: VhostUserDeviceSpec<D>): {
  readonly core: D;
  readonly device: VhostUserDevice;
} {
  const { kind, maker = kind, driver, properties, netdev, guest, faults: { latencyMs = 0, hang }, reconnect = false } = spec;
  if (!(latencyMs >= 0 && latencyMs <= 600_000)) throw new UsageError(`${maker}: latencyMs ${latencyMs} is not in 0 to 600000`);
  if (hang !== undefined && hang !== 'connection' && hang !== 'requests') {
    throw new UsageError(`${maker}: hang is ${JSON.stringify(hang)}`, { hint: 'it is \'connection\' or \'requests\'' });
  }
  let site: AttachSite | undefined;
  const core = spec.make((line) => site?.log(line), (error) => site?.fail(error));
  const { thread } = spec;
  if (thread !== undefined && (latencyMs > 0 || hang !== undefined || reconnect)) throw noGates(maker, 'latencyMs, hang or reconnect');
  const steered = steer(core, { latencyMs });
  if (hang === 'requests') for (let index = 0; index < core.queueCount; index += 1) steered.queue(index).hold();
  const left = (): void => {
    spec.closed?.();
    site = undefined;
  };
  const device: VhostUserDevice = {
    kind,
    guest,
    queue(index) {
      if (thread !== undefined) throw noGates(maker, 'queue()');
      return steered.queue(index);
    },
    gate: thread === undefined ? steered.gate : shutGate(() => { throw noGates(maker, 'gate'); }),
    async attach(at): Promise<Attachment> {
      if (site !== undefined) throw new UsageError(`${maker}: this device is plugged already`, { hint: 'Unplug it first, or make another.' });
      site = at;
      try {
        if (thread === undefined) await spec.open?.();
      } catch (error) {
        site = undefined;
        throw error;
      }
      try {
        const front = {
          driver, properties: typeof properties === 'function' ? properties(at, core) : properties, reconnect, onDetached: left,
          ...(netdev === undefined ? {} : { netdev }),
        };
        if (thread === undefined) return await attachVhostUser(at, { ...front, steered, mute: hang === 'connection' });
        return await attachInWorker(at, { ...front, thread, core });
      } catch (error) {
        await core.close?.();
        left();
        throw error;
      }
    },
  };
  return { core, device };
}

/** Of a device that nobody steers. */
function shutGate(refuse: () => never): DeviceGate {
  return {
    configReads: 0, awaitsReset: false,
    changeConfig: refuse, restoreConfig: refuse, interruptConfig: refuse, needsReset: refuse, crash: refuse, restart: refuse,
  };
}

function noGates(maker: string, what: string): UsageError {
  return new UsageError(`${maker}: ${what} with worker: true`, { hint: 'A test steers a device of its own thread: leave worker out.' });
}
