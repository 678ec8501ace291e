// toBeMappedAt: a BAR is decoded at this guest-physical address, as config space, the guest's kernel and QEMU
// agree, and QEMU's memory map has the function's own region there.
import type { MatcherContext } from 'expect';
import { readBarWitnesses } from '../../machine/bar-witnesses.ts';
import { compareWitnesses } from '../../report/witness-table.ts';
import { checkFields, anyFunctionOf, hex, nameOf, outcome, type MatcherResult } from './format.ts';
import { barTestimony, checkBar } from './to-have-bar.ts';

export interface MappingClaim {
  readonly bar: number;
  /** Guest-physical, or an I/O port. */
  readonly address: number | bigint;
  /**
   * `'stale'`: the BAR was moved behind the kernel's back (a config write). Its resource tree keeps the
   * former address until remove and rescan: it is shown, and not asked. Default `'current'`.
   */
  readonly kernelResource?: 'current' | 'stale';
}

const COLUMNS = ['address', 'size'] as const;

/** Passes when every witness, the memory map among them, has the BAR at this address. */
export async function toBeMappedAt(this: MatcherContext, received: unknown, claim: MappingClaim): Promise<MatcherResult> {
  const fn = anyFunctionOf(received, 'toBeMappedAt');
  checkFields(claim, ['bar', 'address', 'kernelResource'], 'toBeMappedAt');
  checkBar(claim.bar);
  const { config, kernel, queryPci, memoryMap } = await readBarWitnesses(fn, claim.bar);
  const resource = claim.kernelResource === 'stale'
    ? { witness: kernel.witness, missing: `stale, as was said${typeof kernel.address === 'bigint' ? `: it has ${hex(kernel.address)}` : ''}` } : kernel;
  const testimonies = [config, resource, queryPci, memoryMap].map(barTestimony);
  const expected = { address: hex(claim.address) };
  const comparison = compareWitnesses(COLUMNS, expected, testimonies);
  // Mapped is what QEMU says: that nobody contradicts is not enough.
  const mapped = memoryMap.missing === undefined && config.missing === undefined;
  return outcome(
    comparison.agreed && mapped, this.utils.matcherHint('toBeMappedAt', 'function', 'claim', { isNot: this.isNot === true }),
    `BAR ${claim.bar} of ${nameOf(fn)}`, COLUMNS, expected, testimonies, comparison,
  );
}
