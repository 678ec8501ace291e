// An interrupt ledger as a table: a row a vector. Pure. In a failure's message the rows that are wrong are marked,
// and those that did not move are counted instead of shown: 2048 vectors stay readable.
import type { VectorCounts } from '../pci/vector-counts.ts';

/** A vector of a ledger (machine/interrupt-ledger.ts), as far as a table shows it. */
export interface LedgerLine extends VectorCounts {
  readonly sharesMessageWith: number | undefined;
}

export interface LedgerFacts {
  readonly rows: readonly LedgerLine[];
  readonly missing: Readonly<Partial<Record<'fired' | 'sent' | 'handled' | 'probed' | 'pending', string>>>;
}

export interface Table {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

const COLUMNS = ['vector', 'fired', 'sent', 'handled', 'probe', 'pending', 'masked', 'CPU'] as const;
const WITNESSES = { fired: 'device: fired', sent: 'VMM: sent', handled: 'guest: handled', probed: 'guest: probe', pending: 'VMM: pending bits' } as const;
/** Rows of a message, at most: those that are wrong first. */
const WRONG_MAX = 40;
const RIGHT_MAX = 16;

/** All of it. A cell of a witness that does not know is `-`; the probe's column is left out where it is not the driver. */
export function ledgerTable({ rows, missing }: LedgerFacts): Table {
  const probe = missing.probed === undefined;
  const kept = <T>(cells: readonly T[]): T[] => cells.filter((_, at) => probe || COLUMNS[at] !== 'probe');
  return { columns: kept(COLUMNS), rows: rows.map((row) => kept(cellsOf(row))) };
}

function cellsOf(row: LedgerLine): string[] {
  const { vector, fired, sent, handled, probed, handledOn, pending, masked, cpu, sharesMessageWith } = row;
  const count = (value: number | undefined): string => (value === undefined ? '-' : String(value));
  const yesNo = (value: boolean | undefined): string => (value === undefined ? '-' : value ? 'yes' : 'no');
  const alone = handledOn.length === 0 || (handledOn.length === 1 && handledOn[0]?.cpu === cpu);
  const on = alone ? '' : ` (${handledOn.map((one) => `CPU ${one.cpu}: ${one.times}`).join(', ')})`;
  return [
    String(vector), count(fired), sharesMessageWith === undefined ? count(sent) : `as ${sharesMessageWith}`,
    `${count(handled)}${on}`, count(probed), yesNo(pending), yesNo(masked), count(cpu),
  ];
}

/** Something happened on it. */
function moved({ fired, sent, handled, probed, pending }: LedgerLine): boolean {
  return [fired, sent, handled, probed].some((count) => (count ?? 0) !== 0) || pending === true;
}

/**
 * For a message: rows that are wrong begin with `x` and end with why, those in `claimed` are always shown, and of
 * the rest those that moved. Witnesses that are missing are named below, with the reason.
 */
export function renderLedger(facts: LedgerFacts, wrong: ReadonlyMap<number, readonly string[]>, claimed: ReadonlySet<number>): string {
  const { columns, rows } = ledgerTable(facts);
  const of = (wanted: (line: LedgerLine) => boolean): LedgerLine[] => facts.rows.filter(wanted);
  const allWrong = of(({ vector }) => wrong.has(vector));
  const allRight = of((line) => !wrong.has(line.vector) && (claimed.has(line.vector) || moved(line)));
  const shown = [...allWrong.slice(0, WRONG_MAX), ...allRight.slice(0, RIGHT_MAX)].map(({ vector }) => vector).sort((a, b) => a - b);
  const lines = [['', ...columns], ...shown.map((vector) => [wrong.has(vector) ? 'x' : ' ', ...(rows[vector] ?? [])])];
  const tails = ['', ...shown.map((vector) => (wrong.has(vector) ? `<- ${wrong.get(vector)?.join('; ')}` : ''))];
  const widths = ['', ...columns].map((_, at) => Math.max(...lines.map((line) => line[at]?.length ?? 0)));
  const folded: [number, string][] = [
    [allWrong.length - WRONG_MAX, 'more that are wrong'],
    [allRight.length - RIGHT_MAX, 'more that add up'],
    [facts.rows.length - allWrong.length - allRight.length, 'that did not move'],
  ];
  return [
    ...lines.map((line, index) => `  ${[...line.map((cell, at) => cell.padEnd(widths[at] ?? 0)), tails[index] ?? ''].join('  ').trimEnd()}`),
    ...folded.flatMap(([count, what]) => (count > 0 ? [`     … and ${count} ${what}`] : [])),
    ...Object.entries(WITNESSES).flatMap(([name, witness]) => {
      const why = facts.missing[name as keyof typeof WITNESSES];
      return why === undefined || name === 'probed' ? [] : [`  ?  ${witness} is missing: ${why}`];
    }),
  ].join('\n');
}
