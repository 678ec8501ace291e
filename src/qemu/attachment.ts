// What a device hands to the machine so that QEMU can be given it: the machine knows no device by name.

import type { Recorder } from '../recorder.ts';
import type { QemuVersion } from './versions.ts';

/** An object: a property of a QAPI type, such as a SocketAddress, which QEMU takes in JSON only. */
export type PropertyValue = string | number | boolean | { readonly [key: string]: PropertyValue };

/** A Unix-socket chardev: QEMU connects, the attachment's back end listens. */
export interface ChardevSpec {
  readonly id: string;
  readonly path: string;
  /**
   * QEMU connects again, for ever, when the back end has hung up. vhost-user-blk-pci and a vhost-user netdev go
   * on then; QEMU 7.2 to 11.1 abort, or start no queue again, when the back end of another device model comes
   * back (hw/virtio/vhost-user-base.c: vub_connect starts a vhost_dev that vub_disconnect has cleaned up).
   */
  readonly reconnect?: boolean;
}

/** The host's side of a network card (`-netdev`, `netdev_add`): what the card and its chardev are joined by. */
export interface NetdevSpec {
  readonly id: string;
  /** QEMU's kind of netdev: vhost-user. */
  readonly type: string;
  readonly properties: Readonly<Record<string, PropertyValue>>;
}

/** Where a device is about to be plugged. */
export interface AttachSite {
  /** The QEMU device id (`-device ...,id=`); unique on this machine for its whole life. */
  readonly id: string;
  /** A directory of this machine's own, mode 0700, for sockets; it is removed with the machine. */
  readonly directory: string;
  /** Who it is handed to; absent: some QEMU without faults that this device knows of. */
  readonly qemu?: { readonly version: QemuVersion; readonly accel: 'kvm' | 'tcg' };
  /** The back end failed: reject whatever waits on the machine with this error. */
  readonly fail: (error: Error) => void;
  /** Aborted with the reason when nothing of the machine will happen any more. */
  readonly signal?: AbortSignal;
  /** Add a line to the device's log, shown with the machine's errors. */
  readonly log: (line: string) => void;
  /** Where the device's rings and interrupts are recorded, under its id; absent: nowhere. */
  readonly recorder?: Recorder;
}

/** Interrupts as the device's own side counts them: the first witness. */
export interface FireWitness {
  /** 'vector': index is the MSI-X vector. 'queue': index is the virtqueue; -1 is the config change. */
  readonly unit: 'vector' | 'queue';
  /** Times fired, by index, since the attachment began. */
  fired(): ReadonlyMap<number, number>;
  /**
   * Call `listener` with the index at every fire, as it happens; the one before is no longer called. Absent: when it
   * fires is not known here (a back end in a thread of its own).
   */
  watch?(listener: (index: number) => void): void;
}

/** A virtio device of ours as QEMU sees it, in JSON: enough to stand another in its place. */
export interface BackEndOutline {
  readonly deviceId: number;
  /** Hexadecimal, `0x...`: VirtioDevice's `features` and `ringFeatures`. */
  readonly features: string;
  readonly ringFeatures: string;
  readonly queueCount: number;
  readonly queueSizeMax: number;
  /** Config space, hexadecimal. */
  readonly config: string;
}

/** A device plugged once: from before `device_add` to after DEVICE_DELETED (or QEMU's exit). */
export interface Attachment {
  /** QEMU's device model: edu, ivshmem-doorbell, vhost-user-blk-pci. */
  readonly driver: string;
  readonly properties: Readonly<Record<string, PropertyValue>>;
  /** Chardevs to add before the device and remove after it, in order. */
  readonly chardevs: readonly ChardevSpec[];
  /** Netdevs to add after the chardevs and before the device, and to remove between them. */
  readonly netdevs?: readonly NetdevSpec[];
  readonly witness?: FireWitness;
  /** What its back end is now, or undefined where nothing can stand in for it. Absent: QEMU has all of the device itself. */
  backEnd?(): BackEndOutline | undefined;
  /** Resolves when QEMU has been handed everything by the back end; awaited after `device_add`. */
  ready?(options: { timeoutMs: number; signal: AbortSignal }): Promise<void>;
  /**
   * How many descriptors QEMU closes at the unplug while it still has handlers on their numbers (a bug of
   * its ivshmem): the machine fills those numbers again, lest the next device's descriptors get them.
   */
  readonly danglingFds?: number;
  /** Why QEMU would not survive its unplug, in a clause: an unplug is then refused. */
  readonly immovable?: string;
  /** A test holds, delays or falsifies what the device does: its driver's probe() may wait for that test. */
  steered?(): boolean;
  /** What a test has done to the back end that can spoil an unplug or end QEMU, for that error's hint: 'its back end crashed'. */
  ailment?(): string | undefined;
  /** Stop firing, before `device_del` (FACTS: ivshmem under fire crashes QEMU). */
  quiesce?(): Promise<void>;
  /** QEMU let go of it, or is gone: close sockets, unmap, drain. Idempotent, never rejects for a dead peer. */
  detach(): Promise<void>;
}

/** An attachment as it was: what QEMU was given, and what was behind it. In JSON. */
export interface FormerAttachment extends Pick<Attachment, 'driver' | 'properties' | 'chardevs' | 'netdevs'> {
  readonly kind: string;
  /** Absent: QEMU has all of it itself. */
  readonly backEnd?: BackEndOutline;
}

/** Something that can be plugged. One object may be plugged again after it was unplugged. */
export interface Device {
  /** Name for messages: `virtio-blk`. */
  readonly kind: string;
  /** What the guest is to have before `plug` resolves; absent: no driver is expected. */
  readonly guest?: {
    /** Modules to modprobe before the device is added. */
    readonly modules: readonly string[];
    /** A shell pattern under the function's sysfs directory that is there once the driver is up. */
    readonly ready: string;
  };
  attach(site: AttachSite): Promise<Attachment>;
}
