// One device in one port, from before QEMU knows it until after QEMU let it go.
import { UsageError } from '../errors.ts';
import type { Attachment, AttachSite, Device } from '../qemu/attachment.ts';
import type { Trouble } from './trouble.ts';
import type { BegunUnplug } from './unplug.ts';

export interface PluggedSite {
  readonly id: string;
  readonly port: string;
  readonly directory: string;
  readonly trouble: Trouble;
  readonly qemu: NonNullable<AttachSite['qemu']>;
}

export class Plugged {
  #detached: Promise<void> | undefined;
  #released: Promise<void> | undefined;
  /** When QEMU said DEVICE_DELETED, by performance.now(): its port is free since, whoever asked for that. */
  deletedAtMs: number | undefined;
  /** The unplug that was asked for last, should it end after who asked gave up. */
  begun: BegunUnplug | undefined;

  private constructor(
    readonly device: Device, readonly id: string, readonly port: string, readonly attachment: Attachment,
  ) {}

  static async attach(device: Device, { id, port, directory, trouble, qemu }: PluggedSite): Promise<Plugged> {
    const attachment = await device.attach({
      id, directory, qemu, signal: trouble.signal,
      fail: (error) => trouble.raise(error),
      log: (line) => trouble.log(id, line),
      recorder: trouble.recorder,
    });
    return new Plugged(device, id, port, attachment);
  }

  /** Before anything is asked of guest or QEMU. UsageError when QEMU would not survive the unplug. */
  checkMovable(): void {
    const { immovable } = this.attachment;
    if (immovable === undefined) return;
    throw new UsageError(`${this.device.kind} in ${this.port} (${this.id}) cannot be unplugged: ${immovable}`, { hint: 'it goes with its machine: close that, and start another' });
  }

  /** What QEMU holds beside the device is taken back, by whoever comes first after DEVICE_DELETED; once. */
  release(removeBackends: () => Promise<void>): Promise<void> {
    this.#released ??= removeBackends();
    return this.#released;
  }

  /** Stop its back end; once. */
  detach(): Promise<void> {
    this.#detached ??= this.attachment.detach();
    return this.#detached;
  }
}
