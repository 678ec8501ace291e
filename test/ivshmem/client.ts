// The other side of the ivshmem protocol, as QEMU plays it: connects, and reads what the server hands over.
import { closeFd, connectUnix, pollSocket, receiveMessage } from '../../src/native/index.ts';
import type { SocketPoll } from '../../src/native/index.ts';
import { within } from '../../src/wait.ts';

export interface Message {
  readonly value: bigint;
  readonly fds: readonly number[];
}

export class IvshmemClient {
  readonly fd: number;
  readonly messages: Message[] = [];
  closed = false;
  #poll: SocketPoll;
  #wake = (): void => undefined;

  constructor(path: string) {
    this.fd = connectUnix(path);
    this.#poll = pollSocket(this.fd, () => this.#read());
  }

  #read(): void {
    const bytes = new Uint8Array(8); // as QEMU does: one message at a time
    const received = receiveMessage(this.fd, bytes);
    if (received === undefined) return;
    if (received.byteCount === 0) {
      this.closed = true;
      this.#poll.stop();
    } else {
      this.messages.push({ value: new DataView(bytes.buffer).getBigInt64(0, true), fds: received.fds });
    }
    this.#wake();
  }

  async #until(what: string, done: () => boolean): Promise<void> {
    const reached = new Promise<void>((resolve) => {
      this.#wake = () => {
        if (done()) resolve();
      };
      this.#wake();
    });
    await within(reached, { timeoutMs: 2000, what });
  }

  /** The first `count` messages. */
  async received(count: number): Promise<readonly Message[]> {
    await this.#until(`${count} messages of the server`, () => this.messages.length >= count);
    return this.messages;
  }

  async hungUp(): Promise<void> {
    await this.#until('the server to hang up', () => this.closed);
  }

  /** Stop reading: a QEMU that is busy elsewhere. */
  stall(): void {
    this.#poll.stop();
  }

  resume(): void {
    this.#poll = pollSocket(this.fd, () => this.#read());
  }

  close(): void {
    this.#poll.stop();
    for (const { fds } of this.messages) fds.forEach((fd) => closeFd(fd));
    closeFd(this.fd);
  }
}
