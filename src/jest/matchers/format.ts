// How matchers print what they compare: one spelling for each kind of value, so that equal values are equal
// texts, and the message around a table of witnesses.
import { UsageError } from '../../errors.ts';
import { BareFunction } from '../../machine/bare-function.ts';
import { PciFunction } from '../../machine/pci-function.ts';
import type { WitnessTable } from '../../report/run-report.ts';
import { renderWitnesses, type Comparison, type Testimony } from '../../report/witness-table.ts';

export const hex = (value: number | bigint | undefined): string | undefined => (value === undefined ? undefined : `0x${value.toString(16)}`);
export const decimal = (value: number | undefined): string | undefined => (value === undefined ? undefined : String(value));
export const yesNo = (value: boolean | undefined): string | undefined => (value === undefined ? undefined : value ? 'yes' : 'no');

/** `0000:01:00.0 (edu in rp1)` */
export function nameOf(fn: PciFunction | BareFunction): string {
  return fn instanceof BareFunction ? `${fn.bdf} of the bare machine` : `${fn.bdf} (${fn.kind} in ${fn.port})`;
}

/** What `expect` was given, checked: a function of a machine with a guest, or of a bare one. */
export function anyFunctionOf(received: unknown, matcher: string): PciFunction | BareFunction {
  if (received instanceof PciFunction || received instanceof BareFunction) return received;
  throw new UsageError(`${matcher} takes a PCI function, and got ${received instanceof Promise ? 'a promise' : typeof received}`, {
    hint: received instanceof Promise ? 'await it: expect(await vm.plug(device))' : 'vm.plug(device) returns one; vm.functionOf(device) finds that of a device that is plugged',
  });
}

/** Field names of a claim, so that a misspelt one is not a claim that always holds. */
export function checkFields(claim: object, known: readonly string[], matcher: string): void {
  for (const name of Object.keys(claim)) {
    if (!known.includes(name)) throw new UsageError(`${matcher} knows no ${JSON.stringify(name)}`, { hint: `it takes ${known.join(', ')}` });
  }
}

export interface MatcherResult {
  readonly pass: boolean;
  message(): string;
  /** What the message shows, for the report. */
  readonly witnesses?: WitnessTable;
}

/** A matcher's outcome with its table. `hint`: how Jest begins the message. */
export function outcome(
  pass: boolean, hint: string, headline: string, columns: readonly string[],
  expected: Readonly<Record<string, string | undefined>>, testimonies: readonly Testimony[], { wrong }: Pick<Comparison, 'wrong'>, more = '',
): MatcherResult {
  const rows = testimonies.map((one, index) => ({ ...one, wrong: wrong[index] ?? [] }));
  return { pass, witnesses: { headline, columns, expected, rows }, message: () => `${hint}\n\n${headline}\n${renderWitnesses(columns, expected, testimonies, wrong)}${more === '' ? '' : `\n\n${more}`}` };
}
