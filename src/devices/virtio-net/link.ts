// A cable between two cards, of one machine or of two, in the test's process. A frame goes straight into the
// other card's buffers; while there are none it waits, in order, in a queue of bounded length. When that is full
// the sending guest has to wait, or frames are dropped, as the test likes. One queue a direction: on cards
// with several pairs a pair without buffers holds up the others.
import { UsageError } from '../../errors.ts';
import type { NetPeer, NetPort } from './peer.ts';

export interface NetLinkOptions {
  /** Frames of each direction that can wait for the other card's buffers: 1 to 65536, 256 unless told; 0 with 'drop'. */
  readonly queueFrames?: number;
  /**
   * When so many wait: `wait` (default), the sending card takes nothing more from its guest until half of them are
   * gone: the driver's ring fills up, its stack waits, and no frame is dropped. `drop`: as a switch does.
   */
  readonly whenFull?: 'wait' | 'drop';
}

/** What one direction did with its frames; each is in one of the first three, or waits. */
export interface LinkCounts {
  /** In the other guest's buffers. */
  readonly carried: number;
  /** The queue was full. */
  readonly dropped: number;
  /** The other card did not take it: its interface is down, its filter does not pass it, it is too long; or it left, or the cable was cut. */
  readonly lost: number;
  /** In the queue now. */
  readonly waiting: number;
  /** How often the sending guest had to wait. */
  readonly pauses: number;
}

export interface NetLink {
  readonly ends: readonly [NetPeer, NetPeer];
  /** False: the cable is cut, and frames of either end are lost, those that wait too. */
  up: boolean;
  /** Frames lost, of both directions. */
  readonly lost: number;
  /** From the first end to the second, and back. */
  readonly counts: readonly [LinkCounts, LinkCounts];
}

const QUEUE_FRAMES_MAX = 65536;

/** Two peers, each for one card. Either may be plugged and unplugged as it likes. UsageError for a queue that there cannot be. */
export function netLink({ queueFrames = 256, whenFull = 'wait' }: NetLinkOptions = {}): NetLink {
  const least = whenFull === 'drop' ? 0 : 1;
  if (!Number.isInteger(queueFrames) || queueFrames < least || queueFrames > QUEUE_FRAMES_MAX) {
    throw new UsageError(`netLink: queueFrames ${queueFrames} is not a whole number from ${least} to ${QUEUE_FRAMES_MAX}`);
  }
  return new Link(queueFrames, whenFull === 'wait');
}

class Link implements NetLink {
  readonly ends: readonly [NetPeer, NetPeer];
  readonly counts: readonly [Direction, Direction];
  #up = true;

  constructor(queueFrames: number, waits: boolean) {
    const [there, back] = [new Direction(queueFrames, waits), new Direction(queueFrames, waits)];
    this.counts = [there, back];
    this.ends = [this.#end(there, back), this.#end(back, there)];
  }

  get up(): boolean {
    return this.#up;
  }

  set up(up: boolean) {
    this.#up = up;
    if (!up) for (const direction of this.counts) direction.empty();
  }

  get lost(): number {
    return this.counts[0].lost + this.counts[1].lost;
  }

  #end(out: Direction, into: Direction): NetPeer {
    return {
      kind: 'link',
      attached(port) {
        if (out.from !== undefined) throw new UsageError('netLink: this end has a card already', { hint: 'Give the other end to the second card.' });
        out.from = into.to = port;
      },
      detached() {
        into.empty();
        out.release();
        out.from = into.to = undefined;
      },
      receive: (frame) => out.carry(frame, this.#up),
      ready: () => into.flush(),
    };
  }
}

class Direction implements LinkCounts {
  from: NetPort | undefined;
  to: NetPort | undefined;
  carried = 0;
  dropped = 0;
  lost = 0;
  pauses = 0;
  #queue: Uint8Array[] = [];
  #paused = false;

  constructor(readonly queueFrames: number, readonly waits: boolean) {}

  get waiting(): number {
    return this.#queue.length;
  }

  carry(frame: Uint8Array, up: boolean): void {
    if (!up || this.to === undefined) this.lost += 1;
    else if (this.#queue.length > 0 || !this.#deliver(this.to, frame)) this.#keep(frame);
  }

  /** The other card may have buffers, or have none any more. */
  flush(): void {
    const { to } = this;
    let gone = 0;
    while (to !== undefined && gone < this.#queue.length && this.#deliver(to, this.#queue[gone])) gone += 1;
    this.#queue.splice(0, gone);
    if (this.#queue.length <= this.queueFrames / 2) this.release();
  }

  /** What waits is lost. */
  empty(): void {
    this.lost += this.#queue.length;
    this.#queue = [];
    this.release();
  }

  release(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.from?.resume();
  }

  /** False: it has to wait. */
  #deliver(to: NetPort, frame: Uint8Array): boolean {
    const delivery = to.send(frame, { keeps: true });
    if (delivery === 'no-buffers') return false;
    if (delivery === 'delivered') this.carried += 1;
    else this.lost += 1;
    return true;
  }

  #keep(frame: Uint8Array): void {
    if (this.#queue.length >= this.queueFrames) {
      this.dropped += 1;
      return;
    }
    this.#queue.push(new Uint8Array(frame)); // slice() of a Buffer is no copy
    if (!this.waits || this.#queue.length < this.queueFrames) return;
    this.#paused = true;
    this.pauses += 1;
    this.from?.pause();
  }
}
