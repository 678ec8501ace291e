// A cable between two cards, of one machine or of two, in the test's process. A frame goes straight into the
// other card's buffers; what has no place there is dropped and counted by that card.
import { UsageError } from '../../errors.ts';
import type { NetPeer, NetPort } from './peer.ts';

export interface NetLink {
  readonly ends: readonly [NetPeer, NetPeer];
  /** False: the cable is cut, and frames of either end are lost. */
  up: boolean;
  /** Frames lost to a cable that was cut or had no card at its other end. */
  readonly lost: number;
}

/** Two peers, each for one card. Either may be plugged and unplugged as it likes. */
export function netLink(): NetLink {
  const ports: (NetPort | undefined)[] = [undefined, undefined];
  const link = { up: true, lost: 0 };
  const end = (mine: 0 | 1): NetPeer => ({
    kind: 'link',
    attached(port) {
      if (ports[mine] !== undefined) throw new UsageError('netLink: this end has a card already', { hint: 'Give the other end to the second card.' });
      ports[mine] = port;
    },
    detached() {
      ports[mine] = undefined;
    },
    receive(frame) {
      const other = ports[1 - mine];
      if (link.up && other !== undefined) other.send(frame);
      else link.lost += 1;
    },
  });
  return Object.assign(link, { ends: [end(0), end(1)] as const });
}
