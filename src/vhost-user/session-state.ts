// What the requests of a session share: the device, its memory and rings, and what was negotiated. The
// request groups (memory-, ring- and device-requests.ts) work on it; session.ts makes it and ends it.
import type { VirtioDevice } from '../virtio/device.ts';
import type { BackendChannel } from './backend-channel.ts';
import type { Payloads } from './codec.ts';
import type { Request } from './connection.ts';
import type { DirtyLog } from './dirty-log.ts';
import type { InflightArea } from './inflight.ts';
import type { MemoryMap } from './memory.ts';
import type { ImplementedName, PayloadKind, REQUESTS } from './requests.ts';
import type { RingSet } from './ring-set.ts';

export interface SessionState {
  readonly device: VirtioDevice;
  readonly memory: MemoryMap;
  readonly dirtyLog: DirtyLog;
  readonly rings: RingSet;
  /** Feature bits that driver and front end accepted, the transport's own among them; 0 before. */
  features: bigint;
  /** Protocol features that the front end accepted. */
  protocolFeatures: bigint;
  /** The device status that the driver wrote. */
  status: number;
  /** A ring broke since the last reset. */
  needsReset: boolean;
  inflightArea: InflightArea | undefined;
  channel: BackendChannel | undefined;
  /** The session is ending: what waited for the device must not go on. */
  readonly ending: boolean;
  /** The front end broke the protocol elsewhere than in a request: end the session. */
  fail(error: Error): void;
  deviceFailed(error: unknown): void;
  log(line: string): void;
}

/** A reply that carries a descriptor, which is closed once it was sent. */
export class ReplyWithFd<K extends PayloadKind> {
  constructor(
    readonly payload: Payloads[K],
    readonly fd: number,
  ) {}
}

/** For REPLY_ACK: 1 says that the request was refused, and the session goes on. */
export type Acknowledgement = void | 1;
type ReplyOf<N extends ImplementedName> = (typeof REQUESTS)[N] extends { reply: infer K extends PayloadKind }
  ? Payloads[K] | ReplyWithFd<K> : Acknowledgement;

/** What each implemented request does: its reply, or an acknowledgement, now or later. It throws to end the session. */
export type Handlers = { readonly [N in ImplementedName]: (request: Request<N>) => ReplyOf<N> | Promise<ReplyOf<N>> };
