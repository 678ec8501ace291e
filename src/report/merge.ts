// Several reports as one: the shards of a run, or runs one after the other. A test that is in several is one test whose
// attempts are theirs, in order.
import { UsageError } from '../errors.ts';
import { boundTests } from './event-bound.ts';
import { statusOf, type ReportedTest, type RunReport } from './run-report.ts';
import { parseShard } from './shard.ts';

/**
 * One report of all of them.
 * @throws UsageError without any, and when they are shards of runs that were cut differently
 */
export function mergeReports(reports: readonly RunReport[]): RunReport {
  const [first] = reports;
  if (first === undefined) throw new UsageError('there is no report to merge');
  const begins = reports.map(({ startedAt }) => Date.parse(startedAt));
  const ends = reports.map(({ durationMs }, index) => (begins[index] ?? 0) + durationMs);
  const shards = [...new Set(reports.flatMap(({ shards: some = [] }) => some))].sort((one, other) => parseInt(one) - parseInt(other));
  if (new Set(shards.map((one) => parseShard(one)?.count)).size > 1) {
    throw new UsageError(`these are shards of runs that were cut differently: ${shards.join(', ')}`, { hint: 'merge those of one run' });
  }
  return {
    format: first.format, version: first.version,
    startedAt: new Date(Math.min(...begins)).toISOString(),
    durationMs: Math.max(...ends) - Math.min(...begins),
    environment: {
      rootport: joined(reports.map(({ environment }) => environment.rootport)),
      node: joined(reports.map(({ environment }) => environment.node)),
      host: joined(reports.map(({ environment }) => environment.host)),
      machines: [...new Set(reports.flatMap(({ environment }) => environment.machines))].sort(),
    },
    ...(shards.length === 0 ? {} : { shards }),
    tests: boundTests(mergeTests(reports.flatMap(({ tests }) => tests))),
  };
}

/** The shards that a merged report lacks, by name: `3/4`. */
export function missingShards({ shards = [] }: Pick<RunReport, 'shards'>): string[] {
  const count = parseShard(shards[0] ?? '')?.count ?? 0;
  return Array.from({ length: count }, (_, index) => `${index + 1}/${count}`).filter((one) => !shards.includes(one));
}

function mergeTests(tests: readonly ReportedTest[]): ReportedTest[] {
  const byName = new Map<string, ReportedTest>();
  for (const test of tests) {
    const key = JSON.stringify([test.file, test.name]);
    const earlier = byName.get(key);
    byName.set(key, earlier === undefined ? test : again(earlier, test));
  }
  return [...byName.values()].sort((one, other) => (one.file < other.file ? -1 : one.file > other.file ? 1 : 0));
}

/** A test that every shard skipped is skipped; one that some ran is what it came to there. */
function again(one: ReportedTest, other: ReportedTest): ReportedTest {
  const attempts = [...one.attempts, ...other.attempts].sort((a, b) => Date.parse(a.startedAt) - Date.parse(b.startedAt));
  return { ...one, attempts, durationMs: one.durationMs + other.durationMs, status: statusOf(attempts.map(({ outcome }) => outcome)) };
}

function joined(texts: readonly string[]): string {
  return [...new Set(texts)].join('; ');
}
