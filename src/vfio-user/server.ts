// The server's side of vfio-user: one PCI function of this process behind a listening Unix socket, to which QEMU's
// vfio-user-pci (since 10.1) connects. Source: QEMU docs/interop/vfio-user.rst. The client's memory is mapped, so that
// the device reads and writes it without a message. Its interrupts are MSI-X. No INTx, no MSI, no
// migration, no ioeventfds, no BAR that the client maps.
import { ProtocolError } from '../errors.ts';
import { closeFd } from '../native/index.ts';
import { UnixListener } from '../native/unix-listener.ts';
import { MemoryMap } from '../vhost-user/memory.ts';
import { MEMORY_SLOTS_MAX } from '../vhost-user/protocol.ts';
import type { GuestMemory } from '../virtio/guest-memory.ts';
import { Connection, type Answer, type Command } from './connection.ts';
import { InterruptLines } from './interrupt-lines.ts';
import {
  DATA_BYTES_MAX, DEVICE_FLAG, DEVICE_INFO, DMA_MAP, DMA_UNMAP, ERRNO, FDS_MAX, IRQ, IRQ_FLAG, IRQ_INFO, IRQ_SET, REGION,
  REGION_ACCESS, REGION_FLAG, REGION_INFO, VERSION, VERSION_HEAD, VFIO_USER,
} from './protocol.ts';

/** A BAR, the ROM or config space. Offsets and lengths are inside it: the server has checked. */
export interface VfioRegion {
  readonly sizeBytes: number;
  /** Fill `into` from `offset` on. */
  read(offset: number, into: Uint8Array): void;
  /** Absent: read-only, and what is written is dropped. */
  write?(offset: number, bytes: Uint8Array): void;
}

/** A PCI function as VFIO sees one. */
export interface VfioFunction {
  /** By VFIO's region index: 0 to 5 the BARs, 6 the ROM, 7 config space (which each has). */
  readonly regions: readonly (VfioRegion | undefined)[];
  /** MSI-X: 0 to 2048. */
  readonly vectorCount: number;
  /** The client resets the device. */
  reset(): void;
}

export interface VfioUserServerOptions {
  /** Where to listen, at most 107 bytes; removed on close. */
  readonly path: string;
  readonly function: VfioFunction;
  /** The client broke the protocol, or the function's own code threw: its connection is closed. */
  readonly onError: (error: Error) => void;
  readonly log?: (line: string) => void;
}

export class VfioUserServer {
  readonly #options: VfioUserServerOptions;
  readonly #listener: UnixListener;
  readonly #lines: InterruptLines;
  readonly #memory = new MemoryMap();
  /** Stretches that came without a descriptor: other devices' BARs, ROMs. They cannot be reached. */
  readonly #unmapped = new Set<string>();
  #connection: Connection | undefined;
  #negotiated = false;
  #closed = false;

  /** Listen at once. Throws SystemCallError: EADDRINUSE, ENAMETOOLONG, EACCES. */
  static listen(options: VfioUserServerOptions): VfioUserServer {
    return new VfioUserServer(options);
  }

  private constructor(options: VfioUserServerOptions) {
    this.#options = options;
    this.#lines = new InterruptLines(options.function.vectorCount);
    this.#listener = new UnixListener({ path: options.path, onConnection: (fd) => this.#connect(fd), onError: options.onError });
  }

  /** A client is connected, and the protocol's version is settled. */
  get connected(): boolean {
    return this.#negotiated;
  }

  /** The client's memory, by the addresses that its device uses: guest-physical ones where no IOMMU is between. */
  get memory(): GuestMemory {
    return this.#memory;
  }

  /** Send an MSI-X vector to the client; false when it does not listen to that one. */
  signal(vector: number): boolean {
    return this.#lines.signal(vector);
  }

  /** Hang up, stop listening, unmap. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#listener.close();
    this.#connection?.close();
    this.#disconnect();
  }

  #connect(fd: number): void {
    if (this.#connection !== undefined) {
      this.#options.log?.('vfio-user: a second client was turned away');
      closeFd(fd);
      return;
    }
    this.#connection = new Connection({
      fd,
      onCommand: (command) => this.#answer(command),
      onEnd: (error) => {
        this.#disconnect();
        this.#options.log?.(`vfio-user: the client left${error === undefined ? '' : `: ${error.message}`}`);
        if (error !== undefined) this.#options.onError(error);
      },
    });
  }

  /** What the client gave is given up, the function's own state is kept (Client Disconnection). */
  #disconnect(): void {
    this.#connection = undefined;
    this.#negotiated = false;
    this.#lines.close();
    this.#memory.clear();
    this.#unmapped.clear();
  }

  #answer({ command, payload, fds }: Command): Answer {
    if (!this.#negotiated && command !== VFIO_USER.VERSION) throw new ProtocolError(`vfio-user: command ${command} before VFIO_USER_VERSION`);
    switch (command) {
      case VFIO_USER.VERSION: return this.#version(payload);
      case VFIO_USER.DMA_MAP: return this.#mapMemory(payload, fds);
      case VFIO_USER.DMA_UNMAP: return this.#unmapMemory(payload);
      case VFIO_USER.DEVICE_GET_INFO: return { payload: DEVICE_INFO.encode({ argsz: DEVICE_INFO.sizeBytes, flags: DEVICE_FLAG.RESET | DEVICE_FLAG.PCI, regionCount: REGION.COUNT, irqCount: IRQ.COUNT }) };
      case VFIO_USER.DEVICE_GET_REGION_INFO: return this.#regionInfo(payload);
      case VFIO_USER.DEVICE_GET_IRQ_INFO: return this.#irqInfo(payload);
      case VFIO_USER.DEVICE_SET_IRQS: return this.#setIrqs(payload, fds);
      case VFIO_USER.REGION_READ: return this.#read(payload);
      case VFIO_USER.REGION_WRITE: return this.#write(payload);
      case VFIO_USER.DEVICE_RESET:
        this.#options.function.reset();
        return {};
      default: return { errno: ERRNO.ENOTSUP };
    }
  }

  #version(payload: Uint8Array): Answer {
    const proposed = VERSION_HEAD.decode(payload);
    if (proposed.major !== VERSION.major) throw new ProtocolError(`vfio-user: the client speaks version ${proposed.major}.${proposed.minor}, and ${VERSION.major}.${VERSION.minor} is spoken here`);
    this.#negotiated = true;
    const capabilities = { max_msg_fds: FDS_MAX, max_data_xfer_size: DATA_BYTES_MAX, max_dma_maps: MEMORY_SLOTS_MAX, pgsizes: 4096 };
    const json = Buffer.from(`${JSON.stringify({ capabilities })}\0`);
    return { payload: Buffer.concat([VERSION_HEAD.encode({ major: VERSION.major, minor: Math.min(VERSION.minor, proposed.minor) }), json]) };
  }

  #mapMemory(payload: Uint8Array, fds: readonly number[]): Answer {
    const { offset, address, size } = DMA_MAP.decode(payload);
    const [fd] = fds;
    if (fd === undefined) {
      this.#unmapped.add(`${address} ${size}`);
      return {};
    }
    if (this.#memory.overlaps(address, size)) return { errno: ERRNO.EEXIST };
    try {
      this.#memory.prepareAdd({ guestAddress: address, size, userAddress: address, mmapOffset: offset }, fd).commit();
      return {};
    } catch (error) {
      this.#options.log?.(`vfio-user: DMA_MAP of ${size} bytes at 0x${address.toString(16)}: ${(error as Error).message}`);
      return { errno: ERRNO.EINVAL };
    }
  }

  #unmapMemory(payload: Uint8Array): Answer {
    const { address, size } = DMA_UNMAP.decode(payload);
    if (this.#unmapped.delete(`${address} ${size}`)) return { payload };
    try {
      this.#memory.prepareRemove({ guestAddress: address, size, userAddress: address, mmapOffset: 0n }).commit();
      return { payload };
    } catch {
      return { errno: ERRNO.EINVAL };
    }
  }

  #regionInfo(payload: Uint8Array): Answer {
    const { index } = REGION_INFO.decode(payload);
    if (index >= REGION.COUNT) return { errno: ERRNO.EINVAL };
    const region = this.#options.function.regions[index];
    const flags = region === undefined ? 0 : REGION_FLAG.READ | (region.write === undefined ? 0 : REGION_FLAG.WRITE);
    return { payload: REGION_INFO.encode({ argsz: REGION_INFO.sizeBytes, flags, index, size: BigInt(region?.sizeBytes ?? 0) }) };
  }

  #irqInfo(payload: Uint8Array): Answer {
    const { index } = IRQ_INFO.decode(payload);
    if (index >= IRQ.COUNT) return { errno: ERRNO.EINVAL };
    const [flags, count] = index === IRQ.MSIX ? [IRQ_FLAG.EVENTFD, this.#lines.count] : [0, 0];
    return { payload: IRQ_INFO.encode({ argsz: IRQ_INFO.sizeBytes, flags, index, count }) };
  }

  #setIrqs(payload: Uint8Array, fds: number[]): Answer {
    const { flags, index, start, count } = IRQ_SET.decode(payload);
    const errno = index !== IRQ.MSIX ? ERRNO.EINVAL : this.#lines.set({ flags, start, count }, fds);
    return errno === 0 ? {} : { errno };
  }

  #read(payload: Uint8Array): Answer {
    const { offset, region: index, count } = REGION_ACCESS.decode(payload);
    const region = this.#regionOf(index, offset, count);
    if (region === undefined) return { errno: ERRNO.EINVAL };
    const data = new Uint8Array(count);
    region.read(Number(offset), data);
    return { payload: Buffer.concat([REGION_ACCESS.encode({ offset, region: index, count }), data]) };
  }

  #write(payload: Uint8Array): Answer {
    const { offset, region: index, count } = REGION_ACCESS.decode(payload);
    const region = this.#regionOf(index, offset, count);
    const data = payload.subarray(REGION_ACCESS.sizeBytes);
    if (region === undefined || data.length !== count) return { errno: ERRNO.EINVAL };
    region.write?.(Number(offset), data);
    return { payload: REGION_ACCESS.encode({ offset, region: index, count }) };
  }

  #regionOf(index: number, offset: bigint, count: number): VfioRegion | undefined {
    const region = this.#options.function.regions[index];
    return region === undefined || count > DATA_BYTES_MAX || offset + BigInt(count) > BigInt(region.sizeBytes) ? undefined : region;
  }
}
