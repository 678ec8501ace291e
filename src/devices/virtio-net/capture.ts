// A capture to a pcapng file: stands between cards and their peers, and writes down every frame of both
// directions. Of each card one interface; those of several cards can be in one file. Written
// synchronously in larger pieces: a frame that passed is never lost, and memory is bounded.
import { closeSync, openSync, writeSync } from 'node:fs';
import { EnvironmentError } from '../../errors.ts';
import { macText } from './ethernet.ts';
import type { NetPeer, NetPort } from './peer.ts';
import { interfaceBlock, packetBlock, sectionHeaderBlock } from './pcapng.ts';
import type { CapturedFrame } from './pcapng.ts';

export interface Capture {
  readonly path: string;
  /** Frames written, of all cards. */
  readonly frames: number;
  /** A peer that does what `peer` does, with its frames captured. One for each card. */
  tap(peer: NetPeer): NetPeer;
  /** Write out what is not in the file yet. It is, too, when the last card is unplugged. */
  flush(): void;
}

const PENDING_BYTES_MAX = 64 * 1024;

/** Capture to this file, which is made anew when the first card is plugged. EnvironmentError then when it cannot be. */
export function capture(path: string): Capture {
  return new PcapngCapture(path);
}

class PcapngCapture implements Capture {
  frames = 0;
  #fd: number | undefined;
  #made = false;
  #cards = 0;
  #interfaces = 0;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;

  constructor(readonly path: string) {}

  tap(inner: NetPeer): NetPeer {
    let interfaceId: number | undefined;
    const write = (port: NetPort, frame: Omit<CapturedFrame, 'interfaceId' | 'timeUs'>): void => {
      if (interfaceId !== undefined) this.#packet(port, { ...frame, interfaceId, timeUs: nowUs() });
    };
    return {
      kind: `capture of ${inner.kind}`,
      inner,
      attached: (port) => {
        this.#open();
        try {
          inner.attached?.(port);
        } catch (error) {
          this.#close();
          throw error;
        }
        if (interfaceId === undefined) {
          interfaceId = this.#interfaces++;
          this.#put(interfaceBlock(`card${interfaceId} ${macText(port.mac)}`, port.mac));
        }
      },
      receive: (frame, port, queue) => {
        write(port, { frame, direction: 'outbound', queue });
        inner.receive(frame, port, queue);
      },
      sent: (frame, port, delivery, queue) => {
        write(port, { frame, direction: 'inbound', queue, ...(delivery === 'delivered' ? {} : { comment: `dropped: ${delivery}` }) });
        inner.sent?.(frame, port, delivery, queue);
      },
      ready: (port) => inner.ready?.(port),
      detached: (port) => {
        inner.detached?.(port);
        this.#close(port);
      },
    };
  }

  flush(): void {
    if (this.#fd === undefined) return;
    const bytes = Buffer.concat(this.#pending);
    this.#pending = [];
    this.#pendingBytes = 0;
    for (let at = 0; at < bytes.length; ) at += writeSync(this.#fd, bytes, at);
  }

  #open(): void {
    if (this.#fd === undefined) {
      try {
        this.#fd = openSync(this.path, this.#made ? 'a' : 'w');
      } catch (error) {
        throw failed(this.path, error);
      }
      if (!this.#made) this.#put(sectionHeaderBlock());
      this.#made = true;
    }
    this.#cards += 1;
  }

  #close(port?: NetPort): void {
    this.#cards -= 1;
    if (this.#cards > 0 || this.#fd === undefined) return;
    this.#try(port, () => this.flush());
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #packet(port: NetPort, frame: CapturedFrame): void {
    if (this.#fd === undefined) return; // it failed, and the machine was told
    this.frames += 1;
    this.#put(packetBlock(frame));
    if (this.#pendingBytes > PENDING_BYTES_MAX) this.#try(port, () => this.flush());
  }

  #put(bytes: Uint8Array): void {
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
  }

  /** A file that cannot be written (a full disk) ends the capture, not the card. */
  #try(port: NetPort | undefined, write: () => void): void {
    try {
      write();
    } catch (error) {
      if (this.#fd !== undefined) closeSync(this.#fd);
      this.#fd = undefined;
      port?.fail(failed(this.path, error));
    }
  }
}

function failed(path: string, cause: unknown): EnvironmentError {
  return new EnvironmentError(`capture: ${path} cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`, {
    cause, hint: 'Is its directory there, writable, and not full?',
  });
}

/** Microseconds since 1970, never going back. */
function nowUs(): number {
  return Math.floor((performance.timeOrigin + performance.now()) * 1000);
}
