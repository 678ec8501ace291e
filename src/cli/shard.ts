// `--shard i/n`: a part of the suites. Which suite is in which is Jest's choice, by a digest of its path, so that all
// machines of a fleet agree without asking (jest-runner's TestSequencer.shard).
import { InvalidArgumentError } from 'commander';

/** As Jest takes it: `2/3` is the second of three. */
export type Shard = `${number}/${number}`;

export function parseShard(text: string): Shard {
  const [, index, count] = /^([1-9]\d*)\/([1-9]\d*)$/.exec(text) ?? [];
  if (index === undefined || count === undefined || Number(index) > Number(count)) {
    throw new InvalidArgumentError('It is not i/n with i from 1 to n.');
  }
  return text as Shard;
}
