// A peer that sends every frame back as it came: a cable plugged into itself.
import type { NetPeer } from './peer.ts';

/** Every frame comes back on the queue pair that it was sent on. A card's own stack ignores its own frames: use packet sockets or a bridge. */
export function loopback(): NetPeer {
  return {
    kind: 'loopback',
    receive: (frame, port, queuePair) => void port.send(frame, { queuePair }),
  };
}
