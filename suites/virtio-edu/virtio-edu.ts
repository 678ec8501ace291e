// virtio-edu: QEMU's edu device as a virtio device. A virtio device of one's own is a class like this one; what
// carries it (vhost-user, QEMU, PCI) is virtioDevice()'s, and the driver in C is in virtio-edu/ beside this file.
//
// Config space     0  le32  identification, 0x010000ed, read-only
//                  4  le32  liveness: reads the inversion of what was written
//                  8  le64  how many events were raised, read-only
// Queue 0, factorial   the driver sends le32 n; gets le64 n! and a u8 status (0: done, 1: n! is over 64 bits)
// Queue 1, echo        the driver sends bytes; gets as many of them as it has room for
// Queue 2, events      the driver gives buffers of a le64; each is given back with an event's number in it
import type { DescriptorChain, VirtioDevice, Virtqueue } from 'rootport';

export const QUEUE = { factorial: 0, echo: 1, events: 2 } as const;

export class VirtioEdu implements VirtioDevice {
  readonly deviceId = 21; // signal distribution: no specification, no driver, and QEMU knows the id
  readonly features = 0n;
  readonly queueCount = 3;
  readonly queueSizeMax = 64;
  readonly #config = new DataView(new ArrayBuffer(16));
  readonly #waitingEvents: bigint[] = [];
  #eventQueue: Virtqueue | undefined;

  constructor() {
    this.#config.setUint32(0, 0x010000ed, true);
  }

  config(): Uint8Array {
    return new Uint8Array(this.#config.buffer);
  }

  /** QEMU sends the whole space for a write of a part of it: what is read-only is left alone. */
  writeConfig(offset: number, bytes: Uint8Array): void {
    if (offset > 4 || offset + bytes.length < 8) return;
    this.#config.setUint32(4, ~new DataView(bytes.buffer, bytes.byteOffset).getUint32(4 - offset, true), true);
  }

  /** Called on a kick: take what is there, and give it back with what was written to it. */
  process(index: number, queue: Virtqueue): void {
    if (index === QUEUE.events) {
      this.#eventQueue = queue;
      return this.#deliver();
    }
    for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
      queue.complete(chain, index === QUEUE.factorial ? factorial(chain) : echo(chain));
    }
  }

  /** From a test: the driver is to hear of this. It waits until the driver has a buffer for it. */
  raise(event: bigint): void {
    this.#config.setBigUint64(8, this.#config.getBigUint64(8, true) + 1n, true);
    this.#waitingEvents.push(event);
    this.#deliver();
  }

  /** The driver reset the device: queues of before are no more. */
  reset(): void {
    this.#eventQueue = undefined;
  }

  #deliver(): void {
    while (this.#waitingEvents.length > 0) {
      const chain = this.#eventQueue?.next();
      if (chain === undefined) return; // process() comes when the driver has given a buffer
      const bytes = new Uint8Array(new BigUint64Array([this.#waitingEvents.shift() ?? 0n]).buffer);
      const length = Math.min(bytes.length, chain.writableBytes);
      chain.copyIn(0, bytes, 0, length);
      this.#eventQueue?.complete(chain, length);
    }
  }
}

/** Bytes written. A request that is not one is given back with nothing written: the driver is not trusted. */
function factorial(chain: DescriptorChain): number {
  if (chain.readableBytes !== 4 || chain.writableBytes !== 9) return 0;
  const request = new Uint32Array(1);
  chain.copyOut(0, new Uint8Array(request.buffer));
  const answer = new DataView(new ArrayBuffer(9));
  let product = 1n;
  for (let n = 2n; n <= request[0] && product < 2n ** 64n; n += 1n) product *= n;
  const fits = product < 2n ** 64n;
  answer.setBigUint64(0, fits ? product : 0n, true);
  answer.setUint8(8, fits ? 0 : 1);
  chain.copyIn(0, new Uint8Array(answer.buffer));
  return 9;
}

function echo(chain: DescriptorChain): number {
  const bytes = new Uint8Array(Math.min(chain.readableBytes, chain.writableBytes, 65536));
  chain.copyOut(0, bytes);
  chain.copyIn(0, bytes);
  return bytes.length;
}
