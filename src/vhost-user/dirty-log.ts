// The dirty log: a bit for each guest page that the device wrote, in memory shared with the front end, which
// reads and clears it while it migrates the guest. QEMU docs/interop/vhost-user.rst, "Migration". Bits are set
// after the write they stand for: set earlier, the front end could take the old page and never come again.
import { ProtocolError } from '../errors.ts';
import { adoptEventfd, closeFd, signalEventfd } from '../native/index.ts';
import { LOG_PAGE_BYTES } from './protocol.ts';
import { SharedArea } from './shared-area.ts';

export class DirtyLog {
  /** VHOST_F_LOG_ALL was accepted: what the device writes is to be marked. */
  enabled = false;
  #area: SharedArea | undefined;
  #bits: Uint8Array = new Uint8Array(0);
  #eventFd: number | undefined;

  /** Marking is wanted and there is something to mark in. */
  get active(): boolean {
    return this.enabled && this.#area !== undefined;
  }

  /** SET_LOG_BASE: a log, in place of the last one. The descriptor stays the caller's. */
  setBase(fd: number, { size, offset }: { size: bigint; offset: bigint }): void {
    const area = new SharedArea('SET_LOG_BASE', fd, { size, offset });
    this.#area?.close();
    this.#area = area;
    this.#bits = area.u8;
  }

  /** SET_LOG_FD: the eventfd that says that bits were set, from here on the log's to close. */
  setEvent(fd: number): void {
    if (!adoptEventfd(fd)) {
      closeFd(fd);
      throw new ProtocolError('vhost-user: SET_LOG_FD came with a descriptor that is no eventfd');
    }
    if (this.#eventFd !== undefined) closeFd(this.#eventFd);
    this.#eventFd = fd;
  }

  /** Mark the pages of a written range; false when the log does not reach that far. Allocates nothing. */
  mark(guestAddress: number, lengthBytes: number): boolean {
    if (lengthBytes <= 0) return true;
    const last = Math.floor((guestAddress + lengthBytes - 1) / LOG_PAGE_BYTES);
    if (last >= this.#bits.length * 8) return false;
    for (let page = Math.floor(guestAddress / LOG_PAGE_BYTES); page <= last; page += 1) {
      // The front end clears bits meanwhile.
      Atomics.or(this.#bits, Math.floor(page / 8), 1 << page % 8);
    }
    return true;
  }

  /** Bits were set: say so to who wants to know. */
  signal(): void {
    if (this.#eventFd !== undefined) signalEventfd(this.#eventFd);
  }

  close(): void {
    this.enabled = false;
    this.#area?.close();
    this.#area = undefined;
    this.#bits = new Uint8Array(0);
    if (this.#eventFd !== undefined) closeFd(this.#eventFd);
    this.#eventFd = undefined;
  }
}
