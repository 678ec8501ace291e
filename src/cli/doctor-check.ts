// One thing that the doctor looked at, and all of them as a table.

export interface Check {
  readonly name: string;
  /** 'ok': found. 'missing': needed, and not there. 'note': not there, or not so good, and it works without. */
  readonly state: 'ok' | 'missing' | 'note';
  readonly detail: string;
  /** What to do about it: a command where one does it. */
  readonly mend?: string;
}

const MARKS = {
  ok: { plain: 'ok     ', mark: '\u001b[32m\u2714\u001b[0m' },
  missing: { plain: 'MISSING', mark: '\u001b[31m\u2718\u001b[0m' },
  note: { plain: 'note   ', mark: '\u001b[33m\u2022\u001b[0m' },
} as const;

/** A row a check with its remedy below it; marks in colour on a terminal, words elsewhere. */
export function table(checks: readonly Check[], isTerminal: boolean): string {
  const width = Math.max(...checks.map(({ name }) => name.length));
  const lead = isTerminal ? 1 : MARKS.ok.plain.length;
  const lines = checks.flatMap(({ name, state, detail, mend }) => [
    `${isTerminal ? MARKS[state].mark : MARKS[state].plain}  ${name.padEnd(width)}  ${detail}`,
    ...(mend === undefined ? [] : [`${' '.repeat(lead + width + 4)}${state === 'missing' ? 'mend' : 'hint'}: ${mend}`]),
  ]);
  const missing = checks.filter(({ state }) => state === 'missing').length;
  const verdict = missing === 0 ? 'nothing that is needed is missing' : `${missing} needed and missing`;
  return `${lines.join('\n')}\n\n${verdict}\n`;
}
