// Messages of one vfio-user client over a stream socket. Header and payload are received exactly, so that descriptors
// belong to the message whose bytes they came with. A command is answered before the next one is read.
import { ProtocolError, SystemCallError } from '../errors.ts';
import { closeFd, pollSocket, receiveMessage, sendMessage } from '../native/index.ts';
import type { SocketPoll } from '../native/index.ts';
import { DATA_BYTES_MAX, FDS_MAX, HEADER, HEADER_FLAG, REGION_ACCESS } from './protocol.ts';

/** One command. Descriptors that a handler keeps are taken out of `fds`; what is left is closed after it. */
export interface Command {
  readonly command: number;
  readonly payload: Uint8Array;
  readonly fds: number[];
}

/** What becomes of a command: the reply's payload, or an errno. */
export interface Answer {
  readonly payload?: Uint8Array;
  /** It failed: the reply has no payload. */
  readonly errno?: number;
}

export interface ConnectionOptions {
  /** The connected socket; the connection's to close. */
  readonly fd: number;
  readonly onCommand: (command: Command) => Answer;
  /** The end, said once: undefined when the client hung up between two messages. */
  readonly onEnd: (error: Error | undefined) => void;
}

/** The largest: VERSION's JSON, several writes in one message. */
const MESSAGE_BYTES_MAX = HEADER.sizeBytes + REGION_ACCESS.sizeBytes + DATA_BYTES_MAX;

type Header = ReturnType<typeof HEADER.decode>;

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #poll: SocketPoll;
  #buffer = new Uint8Array(4096);
  #filled = 0;
  #header: Header | undefined;
  #fds: number[] = [];
  #ended = false;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#poll = pollSocket(options.fd, () => this.#read());
  }

  /** Close the socket. No command and no onEnd come after it. Idempotent. */
  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#poll.stop();
    this.#fds.splice(0).forEach(closeFd);
    closeFd(this.#options.fd);
  }

  #read(): void {
    try {
      while (!this.#ended && this.#receive());
    } catch (error) {
      const hungUp = error instanceof SystemCallError && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
      this.#end(hungUp ? undefined : error as Error);
    }
  }

  #end(error: Error | undefined): void {
    if (this.#ended) return;
    this.close();
    this.#options.onEnd(error);
  }

  /** Receive what is there; true when a whole message was, and was answered. */
  #receive(): boolean {
    const wanted = this.#header?.sizeBytes ?? HEADER.sizeBytes;
    while (this.#filled < wanted) {
      const received = receiveMessage(this.#options.fd, this.#buffer.subarray(this.#filled, wanted), FDS_MAX);
      if (received === undefined) return false;
      this.#fds.push(...received.fds);
      if (received.truncated || this.#fds.length > FDS_MAX) throw new ProtocolError(`vfio-user: more descriptors came than the ${FDS_MAX} of a message, or than may be open`);
      if (received.byteCount === 0) {
        if (this.#filled > 0) throw new ProtocolError(`vfio-user: the client hung up within a message, after ${this.#filled} bytes of it`);
        this.#end(undefined);
        return false;
      }
      this.#filled += received.byteCount;
    }
    if (this.#header === undefined) this.#header = this.#checked(HEADER.decode(this.#buffer));
    else this.#complete(this.#header);
    return true;
  }

  #checked(header: Header): Header {
    if ((header.flags & HEADER_FLAG.TYPE) !== HEADER_FLAG.COMMAND) throw new ProtocolError('vfio-user: the client sent a reply, and was asked nothing', { received: header });
    if (header.sizeBytes < HEADER.sizeBytes || header.sizeBytes > MESSAGE_BYTES_MAX) {
      throw new ProtocolError(`vfio-user: a message of ${header.sizeBytes} bytes: it has ${HEADER.sizeBytes} to ${MESSAGE_BYTES_MAX}`, { received: header });
    }
    if (header.sizeBytes > this.#buffer.length) {
      const larger = new Uint8Array(header.sizeBytes);
      larger.set(this.#buffer.subarray(0, this.#filled));
      this.#buffer = larger;
    }
    return header;
  }

  #complete({ messageId, command, sizeBytes, flags }: Header): void {
    const fds = this.#fds;
    this.#fds = [];
    this.#filled = 0;
    this.#header = undefined;
    let answer: Answer;
    try {
      answer = this.#options.onCommand({ command, payload: this.#buffer.slice(HEADER.sizeBytes, sizeBytes), fds });
    } finally {
      fds.splice(0).forEach(closeFd);
    }
    if (this.#ended || (flags & HEADER_FLAG.NO_REPLY) !== 0) return;
    const { errno: error = 0, payload = new Uint8Array(0) } = answer;
    const bytes = new Uint8Array(HEADER.sizeBytes + payload.length);
    bytes.set(HEADER.encode({
      messageId, command, sizeBytes: bytes.length, flags: HEADER_FLAG.REPLY | (error === 0 ? 0 : HEADER_FLAG.ERROR), error,
    }));
    bytes.set(payload, HEADER.sizeBytes);
    if (sendMessage(this.#options.fd, bytes) !== bytes.length) throw new ProtocolError('vfio-user: the client does not read its replies');
  }
}
