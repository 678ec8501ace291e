// What each witness says of one claim, side by side. Pure: texts in, a verdict and a table out.
// A witness that is missing is shown as missing: it agrees with nothing and contradicts nothing.

/** One witness: what it says in each column; a column that it leaves out, it knows nothing of. */
export interface Testimony {
  /** Who: `VMM: query-pci`. */
  readonly witness: string;
  readonly says: Readonly<Record<string, string | undefined>>;
  /** Why it says nothing at all. */
  readonly missing?: string;
  /** A remark behind the row. */
  readonly note?: string;
}

export interface Comparison {
  readonly agreed: boolean;
  /** Witnesses that said something. */
  readonly present: number;
  /** Per testimony, in order, the columns in which it disagrees. */
  readonly wrong: readonly (readonly string[])[];
}

/**
 * Where witnesses disagree. A column with an expectation: with that. Without one: with the other
 * witnesses, that is, with what most of them say (of equally many, with what the first says).
 */
export function compareWitnesses(
  columns: readonly string[], expected: Readonly<Record<string, string | undefined>>, testimonies: readonly Testimony[],
): Comparison {
  const wrong = testimonies.map((): string[] => []);
  for (const column of columns) {
    const right = expected[column] ?? mostSaid(testimonies.map(({ says }) => says[column]));
    for (const [index, { says }] of testimonies.entries()) {
      if (says[column] !== undefined && says[column] !== right) wrong[index]?.push(column);
    }
  }
  return {
    agreed: wrong.every((some) => some.length === 0),
    present: testimonies.filter(({ missing }) => missing === undefined).length,
    wrong,
  };
}

function mostSaid(values: readonly (string | undefined)[]): string | undefined {
  const times = new Map<string, number>();
  for (const value of values) if (value !== undefined) times.set(value, (times.get(value) ?? 0) + 1);
  return [...times].reduce<[string, number] | undefined>((best, one) => (best === undefined || one[1] > best[1] ? one : best), undefined)?.[0];
}

/**
 * The table: the expected values first, then a row a witness. A row that disagrees begins with `x` and ends
 * with the columns in which it does; a missing one begins with `?`.
 */
export function renderWitnesses(
  columns: readonly string[], expected: Readonly<Record<string, string | undefined>>,
  testimonies: readonly Testimony[], wrong: readonly (readonly string[])[],
): string {
  const rows: string[][] = [
    ['', 'witness', ...columns],
    ['', 'expected', ...columns.map((column) => expected[column] ?? '(any)')],
    ...testimonies.map(({ witness, says, missing }, index) => [
      missing !== undefined ? '?' : (wrong[index]?.length ?? 0) > 0 ? 'x' : '',
      witness,
      ...(missing !== undefined ? [] : columns.map((column) => says[column] ?? '-')),
    ]),
  ];
  const width = (at: number): number => Math.max(...rows.map((row) => row[at]?.length ?? 0));
  const widths = ['', '', ...columns].map((_, at) => width(at));
  const tails = ['', '', ...testimonies.map(({ missing, note }, index) => [
    ...(missing === undefined ? [] : [`missing: ${missing}`]),
    ...((wrong[index]?.length ?? 0) > 0 ? [`<- ${wrong[index]?.join(', ')}`] : []),
    ...(note === undefined ? [] : [`(${note})`]),
  ].join(' '))];
  return rows.map((row, index) => `  ${[...row.map((cell, at) => cell.padEnd(widths[at] ?? 0)), tails[index] ?? ''].join('  ').trimEnd()}`).join('\n');
}
