// `i/n`: a part of the suites. Which suite is in which is Jest's choice, by a digest of its path, so that all machines of
// a fleet agree without asking (jest-runner's TestSequencer.shard).

/** As Jest takes it, and a report has it: `2/3` is the second of three. */
export type Shard = `${number}/${number}`;

/** Which, from 1, of how many; undefined for what is no shard. */
export function parseShard(text: string): { readonly index: number; readonly count: number } | undefined {
  const [, index = NaN, count = NaN] = (/^([1-9]\d*)\/([1-9]\d*)$/.exec(text) ?? []).map(Number);
  return index <= count ? { index, count } : undefined;
}
