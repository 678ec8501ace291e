// One ring of a session: its eventfds, its addresses, and the virtqueue while it runs. It starts when
// everything is known and its kick eventfd is there, runs while enabled, and stops for GET_VRING_BASE.
// Docs/interop/vhost-user.rst, "Ring states". Knows no messages.
import { ProtocolError } from '../errors.ts';
import { adoptEventfd, closeFd, pollEventfd, signalEventfd } from '../native/index.ts';
import type { Poll } from '../native/index.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { hasFeature, VIRTIO_F } from '../virtio/features.ts';
import { QUEUE_SIZE_MAX } from '../virtio/split-ring.ts';
import type { Virtqueue } from '../virtio/virtqueue.ts';
import type { DirtyLog } from './dirty-log.ts';
import type { InflightRegion } from './inflight.ts';
import { createVirtqueue } from '../virtio/virtqueue-factory.ts';
import type { TransportVirtqueue } from '../virtio/virtqueue.ts';
import type { MemoryMap } from './memory.ts';
import { RingNotes } from './ring-notes.ts';

/** What a ring needs of the session around it. */
export interface RingOwner {
  readonly device: VirtioDevice;
  readonly memory: MemoryMap;
  readonly dirtyLog: DirtyLog;
  /** Virtio feature bits that the driver accepted. */
  readonly features: bigint;
  /** Where a ring that starts notes what is in flight; undefined: nowhere. Throws ProtocolError when it has no place. */
  inflight(index: number, size: number, packed: boolean): InflightRegion | undefined;
  /** The device used buffers of this ring and the driver wants to hear of it. */
  called(index: number): void;
  /** Kicks were seen. */
  kicked(index: number, count: number): void;
  /** The device has had its turn at the ring. */
  looked(index: number, queue: Virtqueue): void;
  started(index: number): void;
  /** The ring or its driver misbehaved; the ring is stopped, the session goes on. */
  broken(index: number, error: ProtocolError): void;
  /** The device's own code threw. */
  deviceFailed(error: unknown): void;
}

/** Where the ring's parts lie, in the front end's addresses. */
export interface RingAddresses {
  readonly descriptor: bigint;
  readonly available: bigint;
  readonly used: bigint;
  /** The guest address under which writes to the device area are marked; undefined: no writes to the ring are. */
  readonly log: number | undefined;
}

export class Ring {
  readonly #owner: RingOwner;
  readonly #process = (): void => this.process();
  #size = 0;
  #base = 0;
  #addresses: RingAddresses | undefined;
  #enabled = false;
  #paused = false;
  #queue: TransportVirtqueue | undefined;
  #notes: RingNotes | undefined;
  #kickFd: number | undefined;
  #callFd: number | undefined;
  #errorFd: number | undefined;
  #poll: Poll | undefined;

  constructor(
    readonly index: number,
    owner: RingOwner,
  ) {
    this.#owner = owner;
  }

  /** The virtqueue while the ring runs. */
  get queue(): Virtqueue | undefined {
    return this.#queue;
  }

  get #packed(): boolean {
    return hasFeature(this.#owner.features, VIRTIO_F.VIRTIO_F_RING_PACKED);
  }

  setSize(size: number): void {
    this.#refuseRunning('SET_VRING_NUM');
    const most = Math.min(this.#owner.device.queueSizeMax, QUEUE_SIZE_MAX);
    const any = this.#packed;
    if (size < 1 || size > most || (!any && (size & (size - 1)) !== 0)) {
      throw new ProtocolError(`vhost-user: SET_VRING_NUM of ring ${this.index} to ${size}: a ${any ? 'size' : 'power of two'} up to ${most} is wanted`, {
        hint: "QEMU's queue-size property must not exceed the device's largest",
      });
    }
    this.#size = size;
  }

  setBase(base: number): void {
    this.#refuseRunning('SET_VRING_BASE');
    // Packed: two indices with their wrap counters; the queue holds them against its size.
    if (base > 0xffff && !this.#packed) throw new ProtocolError(`vhost-user: SET_VRING_BASE of ring ${this.index} to ${base}: an avail index has 16 bits`);
    this.#base = base;
  }

  setAddresses(addresses: RingAddresses): void {
    const same = this.#addresses?.descriptor === addresses.descriptor
      && this.#addresses.available === addresses.available && this.#addresses.used === addresses.used;
    if (!same) this.#refuseRunning('SET_VRING_ADDR');
    this.#addresses = addresses;
    if (this.#notes !== undefined) this.#notes.logAddress = addresses.log;
    this.#start();
  }

  /** The kick eventfd, from here on the ring's to close. */
  setKick(fd: number): void {
    this.#stopKicks();
    this.#checkEventfd('SET_VRING_KICK', fd);
    this.#kickFd = fd;
    this.#poll = pollEventfd(fd, (count) => this.#kick(count));
    this.#start();
  }

  /** The call eventfd (undefined: the driver polls), from here on the ring's to close. */
  setCall(fd: number | undefined): void {
    if (fd !== undefined) this.#checkEventfd('SET_VRING_CALL', fd);
    if (this.#callFd !== undefined) closeFd(this.#callFd);
    this.#callFd = fd;
  }

  /** The error eventfd, from here on the ring's to close. */
  setError(fd: number | undefined): void {
    if (fd !== undefined) this.#checkEventfd('SET_VRING_ERR', fd);
    if (this.#errorFd !== undefined) closeFd(this.#errorFd);
    this.#errorFd = fd;
  }

  enable(enabled: boolean): void {
    this.#enabled = enabled;
    // The kick for what is in the ring may have come while it was disabled.
    if (enabled) this.process();
    else if (this.#queue !== undefined) this.#owner.device.disabled?.(this.index);
  }

  /** Take no requests although kicks come; resume() looks into the ring again. */
  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.process();
  }

  /** Guest memory was mapped anew while the ring runs; no request of it is in use. */
  remap(): void {
    this.#queue?.remap();
  }

  /** Interrupt the driver; false when it polls or the ring has no call eventfd yet. */
  signal(): boolean {
    if (this.#callFd === undefined) return false;
    signalEventfd(this.#callFd);
    return true;
  }

  /** Say on the error eventfd, if there is one, that the ring is broken. */
  signalError(): void {
    if (this.#errorFd !== undefined) signalEventfd(this.#errorFd);
  }

  /** Let the device look for requests, if the ring runs. */
  process(): void {
    const queue = this.#queue;
    if (queue === undefined || !this.#enabled || this.#paused) return;
    try {
      this.#owner.device.process(this.index, queue);
      this.#owner.looked(this.index, queue);
    } catch (error) {
      this.#owner.deviceFailed(error);
      queue.break(new ProtocolError(`vhost-user: the device failed on queue ${this.index}: ${String(error)}`, { cause: error }));
    }
  }

  /** Stop, drained or not; the base to go on from. The call and error eventfds stay. */
  stop(): number {
    this.#stopKicks();
    this.#paused = false;
    if (this.#queue !== undefined) {
      this.#queue.stop();
      this.#base = this.#queue.base;
      this.#queue = undefined;
      this.#notes = undefined;
    }
    return this.#base;
  }

  /** Stop and close everything. Idempotent. */
  close(): void {
    this.stop();
    this.setCall(undefined);
    this.setError(undefined);
  }

  #start(): void {
    const addresses = this.#addresses;
    if (this.#queue !== undefined || addresses === undefined || this.#size === 0 || this.#kickFd === undefined) return;
    const { memory, features, device, dirtyLog } = this.#owner;
    const translate = (name: string, userAddress: bigint): ReturnType<MemoryMap['fromUserAddress']> & number => {
      const address = memory.fromUserAddress(userAddress);
      if (address !== undefined) return address;
      throw new ProtocolError(`vhost-user: the ${name} of ring ${this.index}, 0x${userAddress.toString(16)}, is not in a region of SET_MEM_TABLE`, { received: addresses });
    };
    const [packed, size] = [this.#packed, this.#size];
    const descAddress = translate('descriptor table', addresses.descriptor);
    const driverAddress = translate('avail ring', addresses.available);
    const deviceAddress = translate('used ring', addresses.used);
    const inflight = this.#owner.inflight(this.index, size, packed);
    const notes = new RingNotes({
      memory, size, inflight, log: dirtyLog,
      packedAt: packed ? descAddress : undefined,
      onGap: (reason) => this.#queue?.break(reason),
    }, addresses.log);
    this.#queue = createVirtqueue({
      memory, features, size, descAddress, driverAddress, deviceAddress,
      base: this.#base,
      // What was taken and not used comes first; the base is then behind that.
      ...inflight?.resume({ memory, descAddress, deviceAddress, base: this.#base }),
      journal: notes,
      usedBatches: device.usedBatches,
      notify: () => this.#owner.called(this.index),
      yieldTurn: () => void setImmediate(this.#process),
      onBroken: (error) => {
        this.signalError();
        this.#owner.broken(this.index, error);
      },
    });
    this.#notes = notes;
    this.#owner.started(this.index);
    // After this message was answered: the front end may wait for that before it looks at the ring.
    setImmediate(this.#process);
  }

  #kick(count: number): void {
    if (count < 0) {
      const error = new ProtocolError(`vhost-user: the kick eventfd of ring ${this.index} failed with errno ${-count}`);
      if (this.#queue !== undefined) this.#queue.break(error);
      else this.#owner.broken(this.index, error);
      return;
    }
    this.#owner.kicked(this.index, count);
    this.process();
  }

  #stopKicks(): void {
    this.#poll?.stop();
    this.#poll = undefined;
    if (this.#kickFd !== undefined) closeFd(this.#kickFd);
    this.#kickFd = undefined;
  }

  #refuseRunning(request: string): void {
    if (this.#queue !== undefined) throw new ProtocolError(`vhost-user: ${request} of ring ${this.index} while it runs`);
  }

  /** Closes it when it is none. */
  #checkEventfd(request: string, fd: number): void {
    if (adoptEventfd(fd)) return;
    closeFd(fd);
    throw new ProtocolError(`vhost-user: ${request} of ring ${this.index} came with a descriptor that is no eventfd`);
  }
}
