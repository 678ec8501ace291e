// Messages of one vhost-user front end over a stream socket. Header and payload are received exactly,
// never a byte of the next message, so that descriptors belong to the message whose bytes they came
// with. One message is handled at a time: while a handler's promise is pending nothing is read.
import { ProtocolError, SystemCallError } from '../errors.ts';
import { closeFd, pollSocket, receiveMessage, sendMessage } from '../native/index.ts';
import type { SocketEvent, SocketPoll } from '../native/index.ts';
import { decodePayload, decodeRequestHeader, encodeMessage, HEADER_BYTES, PAYLOAD_BYTES_MAX } from './codec.ts';
import type { PayloadOf, Payloads, ReceivedName, RequestHeader } from './codec.ts';
import { HEADER_FLAGS } from './protocol.ts';
import type { PayloadKind, RequestSpec } from './requests.ts';

/** One request. Descriptors that the handler keeps must be taken; the others are closed after it. */
export interface Request<N extends ReceivedName = ReceivedName> {
  readonly name: N;
  /** As it was sent, known or not. */
  readonly id: number;
  readonly spec: RequestSpec;
  readonly payload: PayloadOf<N>;
  readonly needReply: boolean;
  readonly fds: FdParcel;
}

/** Descriptors that came with a message, each to be taken once or closed. */
export class FdParcel {
  readonly #fds: (number | undefined)[];

  constructor(fds: readonly number[]) {
    this.#fds = [...fds];
  }

  get count(): number {
    return this.#fds.length;
  }

  /** Look, to map or check it; it stays the parcel's. */
  peek(index: number): number | undefined {
    return this.#fds[index];
  }

  /** It is the caller's to close from here on. */
  take(index: number): number | undefined {
    const fd = this.#fds[index];
    this.#fds[index] = undefined;
    return fd;
  }

  close(): void {
    for (let index = 0; index < this.#fds.length; index++) {
      const fd = this.take(index);
      if (fd !== undefined) closeFd(fd);
    }
  }
}

export interface ConnectionOptions {
  /** The connected socket; the connection's to close. */
  readonly fd: number;
  readonly onRequest: (request: Request) => void | Promise<void>;
  /** The end, said once: undefined when the front end hung up between two messages. */
  readonly onEnd: (error: Error | undefined) => void;
}

/** More than any message may carry, so that too many can be told from what fits. */
const FD_ROOM = 32;

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #buffer = new Uint8Array(HEADER_BYTES + PAYLOAD_BYTES_MAX);
  #poll: SocketPoll | undefined;
  #ended = false;
  #filled = 0;
  #header: RequestHeader | undefined;
  #fds: number[] = [];

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#listen();
  }

  /** Answer a request. Replies are small and the front end waits for them: a full socket is its fault. */
  reply<K extends PayloadKind>(requestId: number, kind: K, payload: Payloads[K], fds: readonly number[] = []): void {
    if (this.#ended) return;
    const bytes = encodeMessage(requestId, HEADER_FLAGS.REPLY, kind, payload);
    if (sendMessage(this.#options.fd, bytes, fds) !== bytes.length) {
      throw new ProtocolError('vhost-user: the front end does not read its replies');
    }
  }

  /** Close the socket. No request and no onEnd come after it. Idempotent. */
  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#poll?.stop();
    for (const fd of this.#fds) closeFd(fd);
    this.#fds = [];
    closeFd(this.#options.fd);
  }

  #end(error: Error | undefined): void {
    if (this.#ended) return;
    this.close();
    this.#options.onEnd(isHangUp(error) ? undefined : error);
  }

  #listen(): void {
    this.#poll = pollSocket(this.#options.fd, (event) => this.#read(event));
  }

  /** Read and handle what is there; level-triggered, so it may stop after any message. */
  #read({ failed }: SocketEvent): void {
    try {
      while (!this.#ended) {
        const request = this.#receive(failed);
        if (request === undefined) return;
        const handled = this.#handle(request);
        if (handled === undefined) continue;
        this.#poll?.stop();
        handled.then(
          () => {
            request.fds.close();
            if (!this.#ended) this.#listen();
          },
          (error: unknown) => {
            request.fds.close();
            this.#end(error as Error);
          },
        );
        return;
      }
    } catch (error) {
      this.#end(error as Error);
    }
  }

  #handle(request: Request): Promise<void> | undefined {
    let pending: Promise<void> | undefined;
    try {
      pending = this.#options.onRequest(request) ?? undefined;
    } finally {
      if (pending === undefined) request.fds.close();
    }
    return pending;
  }

  /** The next whole message, or undefined when the rest of it is yet to come. */
  #receive(failed: boolean): Request | undefined {
    for (;;) {
      const wanted = HEADER_BYTES + (this.#header?.sizeBytes ?? 0);
      while (this.#filled < wanted) {
        const received = receiveMessage(this.#options.fd, this.#buffer.subarray(this.#filled, wanted), FD_ROOM);
        if (received === undefined) {
          if (failed) throw new ProtocolError('vhost-user: the socket failed');
          return undefined;
        }
        this.#fds.push(...received.fds);
        if (received.truncated) throw new ProtocolError('vhost-user: descriptors were lost: more came than fit, or than may be open');
        if (received.byteCount === 0) {
          if (this.#filled > 0) throw new ProtocolError(`vhost-user: the front end hung up within a message, after ${this.#filled} bytes of it`);
          this.#end(undefined);
          return undefined;
        }
        this.#filled += received.byteCount;
      }
      if (this.#header === undefined) {
        this.#header = decodeRequestHeader(this.#buffer.subarray(0, HEADER_BYTES));
        continue;
      }
      return this.#complete(this.#header);
    }
  }

  #complete({ name, id, spec, needReply, sizeBytes }: RequestHeader): Request {
    const payload = decodePayload(name, this.#buffer.subarray(HEADER_BYTES, HEADER_BYTES + sizeBytes));
    const most = spec.fdCountMax ?? 0;
    if (this.#fds.length > most) {
      throw new ProtocolError(`vhost-user: ${name === 'UNKNOWN' ? `message ${id}` : name} with ${this.#fds.length} descriptors: it carries ${most === 0 ? 'none' : `at most ${most}`}`);
    }
    const request = { name, id, spec, payload, needReply, fds: new FdParcel(this.#fds) };
    this.#fds = [];
    this.#filled = 0;
    this.#header = undefined;
    return request;
  }
}

/** A front end that was killed with replies unread, or while one was sent: as ordinary as a close. */
function isHangUp(error: Error | undefined): boolean {
  return error instanceof SystemCallError && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
}
