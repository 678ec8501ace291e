// The value of `--shard`, for commander.
import { InvalidArgumentError } from 'commander';
import { parseShard, type Shard } from '../report/shard.ts';

export function shardOption(text: string): Shard {
  if (parseShard(text) === undefined) throw new InvalidArgumentError('It is not i/n with i from 1 to n.');
  return text as Shard;
}
