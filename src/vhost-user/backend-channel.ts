// The channel on which the back end asks and the front end answers (SET_BACKEND_REQ_FD). QEMU docs/interop/
// vhost-user.rst, "Back-end communication". Of its requests only CONFIG_CHANGE_MSG is sent (requests.ts).
import { DeadlineError, ProtocolError } from '../errors.ts';
import { closeFd, pollSocket, receiveMessage, sendMessage } from '../native/index.ts';
import type { SocketPoll } from '../native/index.ts';
import { within } from '../wait.ts';
import { encodeMessage, HEADER_BYTES } from './codec.ts';
import { header, HEADER_FLAGS, u64Payload } from './protocol.ts';
import { BACKEND_REQUESTS } from './requests.ts';

/**
 * What became of a request: the front end did it, or said that it could not; it was sent to one that
 * acknowledges nothing (no REPLY_ACK); it was sent, and no answer came in time or before the session's end.
 */
export type ChannelOutcome = 'done' | 'refused' | 'sent' | 'unanswered';

export interface BackendChannelOptions {
  /** The socket; the channel's to close. */
  readonly fd: number;
  /** REPLY_ACK was negotiated. */
  readonly acknowledges: () => boolean;
  /** The front end answered what was not asked. */
  readonly onError: (error: ProtocolError) => void;
  readonly log: (line: string) => void;
}

const REPLY_BYTES = HEADER_BYTES + u64Payload.sizeBytes;

interface Asked {
  readonly id: number;
  readonly settle: (outcome: ChannelOutcome) => void;
}

export class BackendChannel {
  readonly #options: BackendChannelOptions;
  readonly #poll: SocketPoll;
  readonly #buffer = new Uint8Array(REPLY_BYTES);
  readonly #asked: Asked[] = [];
  #filled = 0;
  #closed = false;

  /** Throws ProtocolError for a descriptor that cannot be waited on; it is closed then. */
  constructor(options: BackendChannelOptions) {
    this.#options = options;
    try {
      this.#poll = pollSocket(options.fd, () => this.#read());
    } catch (cause) {
      closeFd(options.fd);
      throw new ProtocolError('vhost-user: SET_BACKEND_REQ_FD came with a descriptor that is no socket', { cause });
    }
  }

  /** Say that config space changed. Undefined when the front end does not take it; else what becomes of it: never rejects. */
  configChanged(timeoutMs: number): Promise<ChannelOutcome> | undefined {
    if (this.#closed) return undefined;
    const { id } = BACKEND_REQUESTS.CONFIG_CHANGE_MSG;
    const acknowledged = this.#options.acknowledges();
    const message = encodeMessage(id, acknowledged ? HEADER_FLAGS.NEED_REPLY : 0, 'empty', undefined);
    try {
      if (sendMessage(this.#options.fd, message) !== message.length) return undefined;
    } catch (error) {
      this.#options.log(`CONFIG_CHANGE_MSG was not sent: ${String(error)}`);
      return undefined;
    }
    if (!acknowledged) return Promise.resolve('sent');
    const answer = new Promise<ChannelOutcome>((settle) => this.#asked.push({ id, settle }));
    return within(answer, { timeoutMs, what: 'the front end to acknowledge CONFIG_CHANGE_MSG' }).catch((error: unknown) => {
      if (error instanceof DeadlineError) return 'unanswered';
      throw error;
    });
  }

  /** Idempotent. What was asked is unanswered. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poll.stop();
    closeFd(this.#options.fd);
    for (const { settle } of this.#asked.splice(0)) settle('unanswered');
  }

  #read(): void {
    try {
      while (!this.#closed) {
        const received = receiveMessage(this.#options.fd, this.#buffer.subarray(this.#filled), 8);
        if (received === undefined) return;
        for (const fd of received.fds) closeFd(fd);
        if (received.byteCount === 0) return this.close(); // its end of the session is told on the other socket
        this.#filled += received.byteCount;
        if (this.#filled === REPLY_BYTES) this.#answered();
      }
    } catch (error) {
      this.close();
      if (error instanceof ProtocolError) this.#options.onError(error);
      else this.#options.log(`the back-end channel failed: ${String(error)}`);
    }
  }

  #answered(): void {
    this.#filled = 0;
    const { request, flags, size } = header.decode(this.#buffer);
    const asked = this.#asked.shift();
    if (asked?.id !== request || flags !== (HEADER_FLAGS.VERSION | HEADER_FLAGS.REPLY) || size !== u64Payload.sizeBytes) {
      throw new ProtocolError('vhost-user: the front end answered on the back-end channel what was not asked', { sent: asked?.id, received: { request, flags, size } });
    }
    asked.settle(u64Payload.decode(this.#buffer, HEADER_BYTES).value === 0n ? 'done' : 'refused');
  }
}
