// The driver's side of a virtio device, as little of it as brings one up: features, one split virtqueue after the
// other in guest RAM, requests. Source: virtio 1.2, 3.1 (initialization), 4.1.4.3 (common configuration), 2.7.
// Not here: packed rings, indirect descriptors, event indices, queue reset; descriptors are never used twice at a time.
import { DeadlineError, ProtocolError, UsageError } from '../errors.ts';
import { layout, u16, u32, u64, u8 } from '../bytes/layout.ts';
import { VIRTIO_F } from '../virtio/features.ts';
import { splitRingParts, virtqDesc, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from '../virtio/split-ring.ts';
import type { QtestClient } from './client.ts';
import type { VirtioTransport } from './virtio-transport.ts';

/** struct virtio_pci_common_cfg (4.1.4.3). */
export const VIRTIO_PCI_COMMON_CFG = layout('virtio_pci_common_cfg', 0x38, {
  device_feature_select: u32(0x00),
  device_feature: u32(0x04),
  driver_feature_select: u32(0x08),
  driver_feature: u32(0x0c),
  config_msix_vector: u16(0x10),
  num_queues: u16(0x12),
  device_status: u8(0x14),
  config_generation: u8(0x15),
  queue_select: u16(0x16),
  queue_size: u16(0x18),
  queue_msix_vector: u16(0x1a),
  queue_enable: u16(0x1c),
  queue_notify_off: u16(0x1e),
  queue_desc: u64(0x20),
  queue_driver: u64(0x28),
  queue_device: u64(0x30),
});
type CommonField = keyof typeof VIRTIO_PCI_COMMON_CFG.fields;

/** device_status (2.1). */
export const VIRTIO_STATUS = { ACKNOWLEDGE: 1, DRIVER: 2, DRIVER_OK: 4, FEATURES_OK: 8, DEVICE_NEEDS_RESET: 64, FAILED: 128 } as const;
export const VIRTIO_MSI_NO_VECTOR = 0xffff;

/** A piece of guest RAM in a request. */
export interface DriverBuffer {
  readonly address: bigint;
  readonly lengthBytes: number;
  /** Device-writable; after the readable ones. */
  readonly writable?: boolean;
}

export interface VirtioMachine {
  readonly qtest: QtestClient;
  allocate(sizeBytes: number, alignment?: number): Promise<bigint>;
}

export class VirtioDriver {
  readonly transport: VirtioTransport;
  readonly #machine: VirtioMachine;

  constructor(machine: VirtioMachine, transport: VirtioTransport) {
    this.#machine = machine;
    this.transport = transport;
  }

  /** A field of the common configuration; 64-bit ones are two accesses, as 4.1.3.1 has it. */
  async get(field: CommonField): Promise<bigint> {
    const { offset, widthBytes } = VIRTIO_PCI_COMMON_CFG.fields[field];
    const read = (at: number, width: 1 | 2 | 4): Promise<number> => this.transport.read('COMMON_CFG', at, width);
    if (widthBytes === 8) return BigInt(await read(offset, 4)) | (BigInt(await read(offset + 4, 4)) << 32n);
    return BigInt(await read(offset, widthBytes as 1 | 2 | 4));
  }

  async set(field: CommonField, value: bigint | number): Promise<void> {
    const { offset, widthBytes } = VIRTIO_PCI_COMMON_CFG.fields[field];
    const write = (at: number, width: 1 | 2 | 4, part: bigint): Promise<void> => this.transport.write('COMMON_CFG', at, width, Number(part));
    if (widthBytes !== 8) return write(offset, widthBytes as 1 | 2 | 4, BigInt(value));
    await write(offset, 4, BigInt(value) & 0xffffffffn);
    await write(offset + 4, 4, BigInt(value) >> 32n);
  }

  /** Reset, and wait until the device says that it is (4.1.4.3.2). */
  async reset(): Promise<void> {
    await this.set('device_status', 0);
    if (await this.get('device_status') !== 0n) throw new ProtocolError('virtio: device_status is not 0 after a reset');
  }

  async offeredFeatures(): Promise<bigint> {
    await this.set('device_feature_select', 0);
    const low = await this.get('device_feature');
    await this.set('device_feature_select', 1);
    return low | (await this.get('device_feature') << 32n);
  }

  /** Reset, acknowledge, and accept VERSION_1 with those of `wanted` that are offered. ProtocolError when refused. */
  async negotiate(wanted = 0n): Promise<bigint> {
    await this.reset();
    await this.set('device_status', VIRTIO_STATUS.ACKNOWLEDGE);
    await this.set('device_status', VIRTIO_STATUS.ACKNOWLEDGE | VIRTIO_STATUS.DRIVER);
    const features = await this.offeredFeatures() & (wanted | 1n << BigInt(VIRTIO_F.VIRTIO_F_VERSION_1));
    await this.set('driver_feature_select', 0);
    await this.set('driver_feature', features & 0xffffffffn);
    await this.set('driver_feature_select', 1);
    await this.set('driver_feature', features >> 32n);
    const status = VIRTIO_STATUS.ACKNOWLEDGE | VIRTIO_STATUS.DRIVER | VIRTIO_STATUS.FEATURES_OK;
    await this.set('device_status', status);
    if ((await this.get('device_status') & BigInt(VIRTIO_STATUS.FEATURES_OK)) === 0n) throw new ProtocolError(`virtio: the device refuses the features 0x${features.toString(16)}`);
    return features;
  }

  /** Lay a queue of `size` entries into guest RAM and enable it; `vector` is its MSI-X vector. */
  async setUpQueue(index: number, { size = 16, vector = VIRTIO_MSI_NO_VECTOR }: { size?: number; vector?: number } = {}): Promise<DriverQueue> {
    await this.set('queue_select', index);
    const largest = Number(await this.get('queue_size'));
    if (largest < size) throw new UsageError(`virtio: queue ${index} has at most ${largest} entries; ${size} asked for`);
    await this.set('queue_size', size);
    await this.set('queue_msix_vector', vector);
    if (vector !== VIRTIO_MSI_NO_VECTOR && Number(await this.get('queue_msix_vector')) !== vector) {
      throw new ProtocolError(`virtio: the device has no resources for vector ${vector} of queue ${index}`);
    }
    const parts = { desc: 0n, avail: 0n, used: 0n };
    for (const name of ['desc', 'avail', 'used'] as const) parts[name] = await this.#machine.allocate(splitRingParts[name].sizeBytes(size), 64);
    await this.set('queue_desc', parts.desc);
    await this.set('queue_driver', parts.avail);
    await this.set('queue_device', parts.used);
    await this.set('queue_enable', 1);
    const notifyOff = Number(await this.get('queue_notify_off'));
    const { notifyOffMultiplier = 0 } = this.transport.structure('NOTIFY_CFG');
    return new DriverQueue(this.#machine.qtest, this.transport, { index, size, ...parts, notifyAt: notifyOff * notifyOffMultiplier });
  }

  /** Requests are served from here on. */
  async driverOk(): Promise<void> {
    await this.set('device_status', await this.get('device_status') | BigInt(VIRTIO_STATUS.DRIVER_OK));
  }
}

interface QueuePlace {
  readonly index: number;
  readonly size: number;
  readonly desc: bigint;
  readonly avail: bigint;
  readonly used: bigint;
  /** In the notification structure. */
  readonly notifyAt: number;
}

export class DriverQueue {
  readonly place: QueuePlace;
  readonly #qtest: QtestClient;
  readonly #transport: VirtioTransport;
  #nextDescriptor = 0;
  #availIndex = 0;
  #usedIndex = 0;

  constructor(qtest: QtestClient, transport: VirtioTransport, place: QueuePlace) {
    this.#qtest = qtest;
    this.#transport = transport;
    this.place = place;
  }

  /** Make a request available; returns its head. The device is not told: `kick`. */
  async add(buffers: readonly DriverBuffer[]): Promise<number> {
    const { size, desc, avail } = this.place;
    if (buffers.length === 0 || buffers.length > size) throw new UsageError(`virtio: a request of ${buffers.length} buffers in a queue of ${size}`);
    const at = (i: number): number => (this.#nextDescriptor + i) % size;
    const head = at(0);
    for (const [i, { address, lengthBytes, writable = false }] of buffers.entries()) {
      const goesOn = i + 1 < buffers.length;
      const flags = (writable ? VIRTQ_DESC_F_WRITE : 0) | (goesOn ? VIRTQ_DESC_F_NEXT : 0);
      await this.#qtest.write(desc + BigInt(16 * at(i)), virtqDesc.encode({ addr: address, len: lengthBytes, flags, next: goesOn ? at(i + 1) : 0 }));
    }
    this.#nextDescriptor = at(buffers.length);
    await this.#qtest.memoryWrite(avail + BigInt(4 + 2 * (this.#availIndex % size)), 2, BigInt(head));
    this.#availIndex = (this.#availIndex + 1) & 0xffff;
    await this.#qtest.memoryWrite(avail + 2n, 2, BigInt(this.#availIndex));
    return head;
  }

  /** Tell the device: an available buffer notification (4.1.5.2). */
  async kick(): Promise<void> {
    await this.#transport.write('NOTIFY_CFG', this.place.notifyAt, 2, this.place.index);
  }

  /** The next request that the device used: its head and the bytes written. DeadlineError after `timeoutMs`. */
  async nextUsed({ timeoutMs = 5000 }: { timeoutMs?: number } = {}): Promise<{ readonly head: number; readonly lengthBytes: number }> {
    const { size, used, index } = this.place;
    const until = performance.now() + timeoutMs;
    // Each read is an answer from QEMU that this process waits for: a back end in this process runs meanwhile.
    while (Number(await this.#qtest.memoryRead(used + 2n, 2)) === this.#usedIndex) {
      if (performance.now() >= until) throw new DeadlineError(`a used request of queue ${index}`, timeoutMs, { hint: 'was the queue kicked, and does the back end complete requests?' });
    }
    const at = used + BigInt(4 + 8 * (this.#usedIndex % size));
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
    return { head: Number(await this.#qtest.memoryRead(at, 4)), lengthBytes: Number(await this.#qtest.memoryRead(at + 4n, 4)) };
  }

  /** add, kick, and nextUsed of just this request. Resolves to the bytes written. */
  async request(buffers: readonly DriverBuffer[], options?: { timeoutMs?: number }): Promise<number> {
    const head = await this.add(buffers);
    await this.kick();
    const used = await this.nextUsed(options);
    if (used.head !== head) throw new ProtocolError(`virtio: request ${head} was made available, and ${used.head} came back`);
    return used.lengthBytes;
  }
}

