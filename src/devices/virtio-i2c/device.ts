// The virtio I2C adapter (virtio 1.2, 5.16): one queue of requests, each a write to or a read from a target, answered
// in order. 7-bit addresses. Knows no transport and no test; what is on the bus is target.ts's.
import { ProtocolError } from '../../errors.ts';
import type { VirtioDevice } from '../../virtio/device.ts';
import { featureMask } from '../../virtio/features.ts';
import { VIRTIO_ID } from '../../virtio/ids.ts';
import type { DescriptorChain, Virtqueue } from '../../virtio/virtqueue.ts';
import { i2cOutHeader, VIRTIO_I2C_F_ZERO_LENGTH_REQUEST, VIRTIO_I2C_FLAGS, VIRTIO_I2C_MSG } from './layout.ts';
import type { I2cTarget } from './target.ts';

/** One request as it was on the bus. */
export interface I2cTransfer {
  /** 7-bit address. */
  readonly address: number;
  readonly direction: 'read' | 'write';
  /** What was written, or was read; empty when nothing was acknowledged. */
  readonly bytes: Uint8Array;
  readonly acknowledged: boolean;
}

export interface VirtioI2cDeviceOptions {
  /** By 7-bit address, live. */
  readonly targets: ReadonlyMap<number, I2cTarget>;
  readonly log: (line: string) => void;
  readonly onTransfer: (transfer: I2cTransfer) => void;
}

const HEADER_BYTES = i2cOutHeader.sizeBytes;
/** i2c_msg.len has 16 bits (linux/i2c.h); a request with more is failed, not copied. */
const DATA_BYTES_MAX = 65_535;
const NOTHING = new Uint8Array(0);

export class VirtioI2cDevice implements VirtioDevice {
  readonly deviceId = VIRTIO_ID.I2C;
  readonly features = featureMask(VIRTIO_I2C_F_ZERO_LENGTH_REQUEST);
  readonly queueCount = 1;
  readonly queueSizeMax = 1024;
  readonly #options: VirtioI2cDeviceOptions;
  readonly #header = new Uint8Array(HEADER_BYTES);
  readonly #status = new Uint8Array(1);
  /** A request with FAIL_NEXT failed, and this one belongs to it. */
  #failing = false;

  constructor(options: VirtioI2cDeviceOptions) {
    this.#options = options;
  }

  config(): Uint8Array {
    return NOTHING;
  }

  process(_index: number, queue: Virtqueue): void {
    for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
      if (chain.readableBytes < HEADER_BYTES || chain.writableBytes < 1) {
        const what = `a request of ${chain.readableBytes} readable and ${chain.writableBytes} writable bytes`;
        this.#options.log(`virtio-i2c: ${what}`);
        queue.break(new ProtocolError(`virtio-i2c: ${what}`, { hint: 'virtio 1.2, 5.16.6: 8 readable bytes of header come first, and a writable status last.' }));
        return;
      }
      const ok = this.#serve(chain);
      this.#status[0] = ok ? VIRTIO_I2C_MSG.OK : VIRTIO_I2C_MSG.ERR;
      chain.copyIn(chain.writableBytes - 1, this.#status);
      queue.complete(chain, chain.writableBytes);
    }
  }

  reset(): void {
    this.#failing = false;
  }

  /** True when it was acknowledged. A group fails from its first failure on (5.16.6). */
  #serve(chain: DescriptorChain): boolean {
    chain.copyOut(0, this.#header);
    const { addr, flags } = i2cOutHeader.decode(this.#header);
    const address = addr >> 1;
    const direction = (flags & VIRTIO_I2C_FLAGS.M_RD) === 0 ? 'write' : 'read';
    const [outBytes, inBytes] = [chain.readableBytes - HEADER_BYTES, chain.writableBytes - 1];
    let bytes: Uint8Array | undefined;
    if (this.#failing) bytes = undefined;
    else if (address > 0x7f || (addr & 1) !== 0) this.#options.log(`virtio-i2c: 0x${addr.toString(16)} is no 7-bit address`);
    else if ((direction === 'write' ? inBytes : outBytes) > 0) this.#options.log(`virtio-i2c: a ${direction} of ${outBytes} readable and ${inBytes} writable bytes`);
    else if (outBytes + inBytes > DATA_BYTES_MAX) this.#options.log(`virtio-i2c: a ${direction} of ${outBytes + inBytes} bytes`);
    else bytes = this.#transfer(chain, address, direction, outBytes, inBytes);
    this.#failing = bytes === undefined && (flags & VIRTIO_I2C_FLAGS.FAIL_NEXT) !== 0;
    this.#options.onTransfer({ address, direction, bytes: bytes ?? NOTHING, acknowledged: bytes !== undefined });
    return bytes !== undefined;
  }

  /** What went over the bus, or undefined when it was not acknowledged. A target is a test's own code: it may throw. */
  #transfer(chain: DescriptorChain, address: number, direction: 'read' | 'write', outBytes: number, inBytes: number): Uint8Array | undefined {
    const target = this.#options.targets.get(address);
    if (target === undefined) return undefined;
    try {
      if (direction === 'write') {
        const written = new Uint8Array(outBytes);
        chain.copyOut(HEADER_BYTES, written);
        return target.write(written) ? written : undefined;
      }
      const read = target.read(inBytes);
      if (read !== undefined && read.length !== inBytes) throw new RangeError(`it gave ${read.length} of ${inBytes} bytes`);
      if (read !== undefined) chain.copyIn(0, read);
      return read;
    } catch (error) {
      this.#options.log(`virtio-i2c: the target at 0x${address.toString(16)} failed: ${String(error)}`);
      return undefined;
    }
  }
}
