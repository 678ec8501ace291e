// A child's output and input as one stream.
import { Duplex, type Readable, type Writable } from 'node:stream';

export function duplexPair(readable: Readable, writable: Writable): Duplex {
  return Duplex.from({ readable, writable });
}
