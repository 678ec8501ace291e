// A listening Unix socket that hands over each connection as a descriptor, on Node's own loop.
// Node's net.Server cannot: its sockets neither take nor pass descriptors.
import { rmSync } from 'node:fs';
import { acceptUnix, closeFd, listenUnix, pollSocket } from './index.ts';
import type { Poll } from './index.ts';

export interface UnixListenerOptions {
  readonly path: string;
  /** A connection: a non-blocking descriptor, now the callee's to close. */
  readonly onConnection: (fd: number) => void;
  /** Accepting failed (EMFILE); the listener has closed itself. */
  readonly onError: (error: Error) => void;
}

export class UnixListener {
  readonly path: string;
  readonly #fd: number;
  readonly #poll: Poll;
  #closed = false;

  /** Listens at once. Throws SystemCallError: EADDRINUSE, ENAMETOOLONG, EACCES. */
  constructor({ path, onConnection, onError }: UnixListenerOptions) {
    this.path = path;
    this.#fd = listenUnix(path);
    this.#poll = pollSocket(this.#fd, () => {
      try {
        for (let fd = acceptUnix(this.#fd); fd !== undefined; fd = this.#closed ? undefined : acceptUnix(this.#fd)) {
          onConnection(fd);
        }
      } catch (error) {
        this.close();
        onError(error as Error);
      }
    });
  }

  /** Stop listening and remove the socket file; connections go on. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poll.stop();
    closeFd(this.#fd);
    rmSync(this.path, { force: true });
  }
}
