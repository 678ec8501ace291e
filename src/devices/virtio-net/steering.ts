// Automatic receive steering (virtio 1.2, 5.1.6.5.6): a received packet goes to the queue pair on which the
// driver last sent its flow. Flows are told apart by a hash of 32 bits that both directions share, and the oldest
// are forgotten. Not RSS.

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const ETHERTYPE_VLAN = 0x8100;
/** As many as Linux's tun remembers. */
const FLOWS_MAX = 4096;

export class FlowSteering {
  /** By hash; the first is the one that was learned first. */
  readonly #pairs = new Map<number, number>();

  /** The driver sent this frame on this pair. */
  learn(frame: Uint8Array, queuePair: number): void {
    const flow = flowHash(frame);
    const known = this.#pairs.get(flow);
    if (known === queuePair) return;
    this.#pairs.set(flow, queuePair);
    if (known === undefined && this.#pairs.size > FLOWS_MAX) {
      for (const oldest of this.#pairs.keys()) {
        this.#pairs.delete(oldest);
        break;
      }
    }
  }

  /** The pair for a frame to the driver; 0 for a flow that it never sent. */
  pairOf(frame: Uint8Array): number {
    return this.#pairs.get(flowHash(frame)) ?? 0;
  }

  clear(): void {
    this.#pairs.clear();
  }
}

/** The same for a flow's both directions: what its two ends hash to is added up. */
export function flowHash(frame: Uint8Array): number {
  let at = 12;
  let type = word(frame, at);
  if (type === ETHERTYPE_VLAN) {
    at += 4;
    type = word(frame, at);
  }
  const ip = at + 2;
  if (type === ETHERTYPE_IPV4 && frame.length >= ip + 20) {
    const fragment = (word(frame, ip + 6) & 0x3fff) !== 0;
    const protocol = frame[ip + 9];
    const ports = fragment ? frame.length : ip + (frame[ip] & 0xf) * 4;
    return bothEnds(frame, ip + 12, 4, ports, protocol);
  }
  if (type === ETHERTYPE_IPV6 && frame.length >= ip + 40) return bothEnds(frame, ip + 8, 16, ip + 40, frame[ip + 6]);
  return bothEnds(frame, 0, 6, frame.length, type);
}

/** Of two addresses in a row, and the ports at `ports` where the protocol has some (TCP and UDP). */
function bothEnds(frame: Uint8Array, addresses: number, addressBytes: number, ports: number, protocol: number): number {
  const hasPorts = (protocol === 6 || protocol === 17) && frame.length >= ports + 4;
  let sum = protocol;
  for (let end = 0; end < 2; end += 1) {
    let hash = hasPorts ? word(frame, ports + 2 * end) : 0;
    const address = addresses + end * addressBytes;
    for (let i = 0; i < addressBytes; i += 2) hash = mix(hash ^ word(frame, address + i));
    sum = (sum + hash) >>> 0;
  }
  return mix(sum);
}

function word(frame: Uint8Array, at: number): number {
  return (frame[at] << 8) | frame[at + 1]; // past the end: 0
}

/** A bijection of 32 bits, of which each bit depends on most others (the finish of MurmurHash3). */
function mix(value: number): number {
  const first = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  const second = Math.imul(first ^ (first >>> 13), 0xc2b2ae35);
  return (second ^ (second >>> 16)) >>> 0;
}
