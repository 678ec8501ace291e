// A peer that a test plays: it reads the frames that the guest sent, one by one, and sends its own. With an
// address it answers ARP and ICMP echo requests by itself, so that a guest's ping works.
import { UsageError } from '../../errors.ts';
import { within } from '../../wait.ts';
import { answerOf, ipv4Bytes, macBytes, macText } from './ethernet.ts';
import type { Station } from './ethernet.ts';
import type { NetPeer, NetPort } from './peer.ts';

export interface ScriptedPeerOptions {
  /** Answer ARP and echo requests for this address: `192.0.2.1`. Without, nothing is answered. */
  readonly ipv4?: string;
  /** The peer's own address; `02:52:50:00:00:01` unless told. */
  readonly mac?: string;
}

export interface NextFrameOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Only a frame of which this holds; others are kept for who asks for them. */
  readonly where?: (frame: Uint8Array) => boolean;
}

/** Frames kept for nextFrame(): when there are more, the oldest are forgotten. */
const KEPT_FRAMES_MAX = 1024;
const KEPT_BYTES_MAX = 4 * 2 ** 20;

interface Asker {
  readonly where: (frame: Uint8Array) => boolean;
  readonly give: (frame: Buffer) => void;
}

export class ScriptedPeer implements NetPeer {
  readonly kind = 'scripted peer';
  readonly mac: string;
  readonly ipv4: string | undefined;
  /** Frames that nobody asked for in time. */
  forgotten = 0;
  /** Requests answered: ARP and echo. */
  answered = 0;
  readonly #station: Station | undefined;
  #port: NetPort | undefined;
  #kept: Buffer[] = [];
  #keptBytes = 0;
  #askers: Asker[] = [];

  constructor({ ipv4, mac = '02:52:50:00:00:01' }: ScriptedPeerOptions = {}) {
    const macParsed = macBytes(mac);
    this.mac = macText(macParsed);
    this.ipv4 = ipv4;
    this.#station = ipv4 === undefined ? undefined : { mac: macParsed, ipv4: ipv4Bytes(ipv4) };
  }

  /** Frames that wait for nextFrame(). */
  get waiting(): number {
    return this.#kept.length;
  }

  /** The next frame that the guest sent and that was not given yet. DeadlineError after `timeoutMs` (10,000). */
  async nextFrame({ timeoutMs = 10_000, signal, where = () => true }: NextFrameOptions = {}): Promise<Buffer> {
    const at = this.#kept.findIndex(where);
    if (at >= 0) {
      const [frame] = this.#kept.splice(at, 1);
      this.#keptBytes -= frame.length;
      return frame;
    }
    let asker: Asker = { where, give: () => undefined };
    const asked = new Promise<Buffer>((resolve) => { asker = { where, give: resolve }; });
    this.#askers.push(asker);
    try {
      return await within(asked, { timeoutMs, signal, what: 'the next frame from the guest' });
    } finally {
      this.#askers = this.#askers.filter((other) => other !== asker);
    }
  }

  attached(port: NetPort): void {
    if (this.#port !== undefined) throw new UsageError('scriptedPeer: this peer has a card already', { hint: 'Make one peer for each card.' });
    this.#port = port;
  }

  detached(): void {
    this.#port = undefined;
  }

  receive(frame: Uint8Array, port: NetPort): void {
    const answer = this.#station === undefined ? undefined : answerOf(this.#station, frame);
    if (answer !== undefined) {
      this.answered += 1;
      port.send(answer);
    }
    this.#keep(Buffer.from(frame));
  }

  #keep(frame: Buffer): void {
    const asker = this.#askers.find(({ where }) => where(frame));
    if (asker !== undefined) {
      this.#askers = this.#askers.filter((other) => other !== asker);
      asker.give(frame);
      return;
    }
    this.#kept.push(frame);
    this.#keptBytes += frame.length;
    while (this.#kept.length > KEPT_FRAMES_MAX || this.#keptBytes > KEPT_BYTES_MAX) {
      this.#keptBytes -= this.#kept.shift()?.length ?? 0;
      this.forgotten += 1;
    }
  }
}

/** A peer for one card. UsageError for an address that is none. */
export function scriptedPeer(options: ScriptedPeerOptions = {}): ScriptedPeer {
  return new ScriptedPeer(options);
}
