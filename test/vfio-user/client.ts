// The client's side of vfio-user for tests: what QEMU's vfio-user-pci sends, and what no client should.
import { closeFd, connectUnix, pollSocket, receiveMessage, sendMessage } from '../../src/native/index.ts';
import type { SocketPoll } from '../../src/native/index.ts';
import { SystemCallError } from '../../src/errors.ts';
import { HEADER, VFIO_USER, VERSION_HEAD } from '../../src/vfio-user/protocol.ts';
import { within } from '../../src/wait.ts';

export interface Reply {
  readonly messageId: number;
  readonly command: number;
  readonly flags: number;
  readonly error: number;
  readonly payload: Uint8Array;
}

export class VfioUserClient {
  readonly #fd: number;
  readonly #poll: SocketPoll;
  #bytes = Buffer.alloc(0);
  #messageId = 0;
  /** The server hung up. */
  hungUp = false;
  #wake: () => void = () => undefined;

  constructor(path: string) {
    this.#fd = connectUnix(path);
    this.#poll = pollSocket(this.#fd, () => this.#read());
  }

  /** The message as it is sent. */
  static message(command: number, payload: Uint8Array, header: { messageId?: number; flags?: number; sizeBytes?: number } = {}): Uint8Array {
    return Buffer.concat([HEADER.encode({ command, sizeBytes: HEADER.sizeBytes + payload.length, flags: 0, ...header }), payload]);
  }

  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    sendMessage(this.#fd, bytes, fds);
  }

  async ask(command: number, payload: Uint8Array = new Uint8Array(0), fds: readonly number[] = []): Promise<Reply> {
    const messageId = (this.#messageId += 1);
    this.send(VfioUserClient.message(command, payload, { messageId }), fds);
    return this.reply();
  }

  async version(major = 0, json = '{}'): Promise<Reply> {
    return this.ask(VFIO_USER.VERSION, Buffer.concat([VERSION_HEAD.encode({ major }), Buffer.from(`${json}\0`)]));
  }

  /** The next message of the server. */
  async reply(): Promise<Reply> {
    const next = async (): Promise<Reply> => {
      for (;;) {
        if (this.#bytes.length >= HEADER.sizeBytes) {
          const { sizeBytes, ...header } = HEADER.decode(this.#bytes);
          if (this.#bytes.length >= sizeBytes) {
            const payload = Uint8Array.from(this.#bytes.subarray(HEADER.sizeBytes, sizeBytes));
            this.#bytes = this.#bytes.subarray(sizeBytes);
            return { ...header, payload };
          }
        }
        await new Promise<void>((resolve) => { this.#wake = resolve; });
      }
    };
    return within(next(), { timeoutMs: 5000, what: 'a reply of the vfio-user server' });
  }

  async end(): Promise<void> {
    const ended = async (): Promise<void> => { while (!this.hungUp) await new Promise<void>((resolve) => { this.#wake = resolve; }); };
    await within(ended(), { timeoutMs: 5000, what: 'the vfio-user server to hang up' });
  }

  close(): void {
    this.#poll.stop();
    closeFd(this.#fd);
  }

  #read(): void {
    const into = new Uint8Array(1 << 16);
    const received = this.#received(into);
    if (received === undefined) return;
    if (received === 0) {
      this.hungUp = true;
      this.#poll.stop();
    }
    this.#bytes = Buffer.concat([this.#bytes, into.subarray(0, received)]);
    this.#wake();
  }

  /** Bytes that came; 0: the server hung up, be it with something of ours unread. */
  #received(into: Uint8Array): number | undefined {
    try {
      return receiveMessage(this.#fd, into)?.byteCount;
    } catch (error) {
      if (error instanceof SystemCallError && error.code === 'ECONNRESET') return 0;
      throw error;
    }
  }
}
