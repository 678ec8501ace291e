// toHaveBar: a function has a BAR of this size and type, as config space, the guest's kernel and QEMU agree.
import type { MatcherContext } from 'expect';
import { UsageError } from '../../errors.ts';
import { readBarWitnesses, type BarTestimony } from '../../machine/bar-witnesses.ts';
import type { BarKind } from '../../pci/bar.ts';
import { compareWitnesses, type Testimony } from '../../report/witness-table.ts';
import { checkFields, anyFunctionOf, hex, nameOf, outcome, yesNo, type MatcherResult } from './format.ts';

export interface BarClaim {
  /** 0 to 5; of a 64-bit BAR the lower half's. */
  readonly bar: number;
  readonly sizeBytes?: number | bigint;
  readonly type?: BarKind;
  readonly prefetchable?: boolean;
}

const COLUMNS = ['type', 'prefetchable', 'size', 'address'] as const;

/**
 * Passes when every witness that tells type, prefetchable and size says what is claimed, and all of them
 * name one address. A BAR whose decoding is off passes when all say that it is mapped nowhere; the
 * guest's kernel, which keeps an address for it, is not asked then.
 */
export async function toHaveBar(this: MatcherContext, received: unknown, claim: BarClaim): Promise<MatcherResult> {
  const fn = anyFunctionOf(received, 'toHaveBar');
  checkFields(claim, ['bar', 'sizeBytes', 'type', 'prefetchable'], 'toHaveBar');
  checkBar(claim.bar);
  const { config, kernel, queryPci, memoryMap, decoding } = await readBarWitnesses(fn, claim.bar);
  const testimonies = [config, decoding ? kernel : { ...kernel, address: undefined }, queryPci, memoryMap].map(barTestimony);
  const expected = { type: claim.type, prefetchable: yesNo(claim.prefetchable), size: hex(claim.sizeBytes) };
  const comparison = compareWitnesses(COLUMNS, expected, testimonies);
  const there = [config, kernel, queryPci].some(({ missing }) => missing === undefined);
  return outcome(
    comparison.agreed && there, this.utils.matcherHint('toHaveBar', 'function', 'claim', { isNot: this.isNot === true }),
    `BAR ${claim.bar} of ${nameOf(fn)}${there ? '' : ': nobody shows such a BAR'}`, COLUMNS, expected, testimonies, comparison,
  );
}

export function checkBar(bar: number): void {
  if (!Number.isInteger(bar) || bar < 0 || bar > 5) throw new UsageError(`bar: ${bar} is none of 0 to 5`);
}

type Optional<T> = { readonly [K in keyof T]?: T[K] | undefined };

export function barTestimony({ witness = '', kind, prefetchable, sizeBytes, address, missing, note }: Optional<BarTestimony>): Testimony {
  return {
    witness,
    says: { type: kind, prefetchable: yesNo(prefetchable), size: hex(sizeBytes), address: address === 'off' ? 'off' : hex(address) },
    ...(missing === undefined ? {} : { missing }),
    ...(note === undefined ? {} : { note }),
  };
}
