// Automatic receive steering (virtio 1.2, 5.1.6.5.6): a received packet goes to the queue pair on which the
// driver last sent its flow. Flows are remembered by a hash that both directions share; those that
// collide share a pair. Not RSS.

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const ETHERTYPE_VLAN = 0x8100;
const BUCKETS = 256;

export class FlowSteering {
  readonly #pairs = new Uint16Array(BUCKETS);

  /** The driver sent this frame on this pair. */
  learn(frame: Uint8Array, queuePair: number): void {
    this.#pairs[flowHash(frame)] = queuePair;
  }

  /** The pair for a frame to the driver; 0 for a flow that it never sent. */
  pairOf(frame: Uint8Array): number {
    return this.#pairs[flowHash(frame)];
  }

  clear(): void {
    this.#pairs.fill(0);
  }
}

/** The same for a flow's both directions: addresses and ports are added up, not concatenated. */
export function flowHash(frame: Uint8Array): number {
  let at = 12;
  let type = word(frame, at);
  if (type === ETHERTYPE_VLAN) {
    at += 4;
    type = word(frame, at);
  }
  const ip = at + 2;
  if (type === ETHERTYPE_IPV4 && frame.length >= ip + 20) {
    let sum = 0;
    for (let i = ip + 12; i < ip + 20; i += 2) sum += word(frame, i);
    const protocol = frame[ip + 9];
    const fragment = (word(frame, ip + 6) & 0x3fff) !== 0;
    const ports = ip + (frame[ip] & 0xf) * 4;
    return mix(sum + protocol + (fragment ? 0 : portSum(frame, ports, protocol)));
  }
  if (type === ETHERTYPE_IPV6 && frame.length >= ip + 40) {
    let sum = 0;
    for (let i = ip + 8; i < ip + 40; i += 2) sum += word(frame, i);
    const protocol = frame[ip + 6];
    return mix(sum + protocol + portSum(frame, ip + 40, protocol));
  }
  let sum = type;
  for (let i = 0; i < 12; i += 2) sum += word(frame, i);
  return mix(sum);
}

/** TCP and UDP only: of others the first words are no ports. */
function portSum(frame: Uint8Array, at: number, protocol: number): number {
  return (protocol === 6 || protocol === 17) && frame.length >= at + 4 ? word(frame, at) + word(frame, at + 2) : 0;
}

function word(frame: Uint8Array, at: number): number {
  return (frame[at] << 8) | frame[at + 1]; // past the end: 0
}

function mix(sum: number): number {
  return Math.imul(sum, 0x9e3779b1) >>> 24;
}
