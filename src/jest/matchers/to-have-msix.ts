// toHaveMsix: a function has an MSI-X capability of this shape, as config space, the guest's lspci and QEMU's
// memory map agree.
import type { MatcherContext } from 'expect';
import { readMsixWitnesses } from '../../machine/msix-witnesses.ts';
import { compareWitnesses } from '../../report/witness-table.ts';
import { checkFields, decimal, anyFunctionOf, hex, nameOf, outcome, type MatcherResult } from './format.ts';

export interface MsixClaim {
  /** 1 to 2048; 0: the function has no MSI-X. */
  readonly vectors: number;
  readonly tableBar?: number;
  readonly pbaBar?: number;
  readonly tableOffset?: number;
  readonly pbaOffset?: number;
}

const COLUMNS = ['vectors', 'table BAR', 'table offset', 'PBA BAR', 'PBA offset'] as const;

export async function toHaveMsix(this: MatcherContext, received: unknown, claim: MsixClaim): Promise<MatcherResult> {
  const fn = anyFunctionOf(received, 'toHaveMsix');
  checkFields(claim, ['vectors', 'tableBar', 'pbaBar', 'tableOffset', 'pbaOffset'], 'toHaveMsix');
  const testimonies = (await readMsixWitnesses(fn)).map(({ witness, vectors, tableBar, tableOffset, pbaBar, pbaOffset, ...more }) => ({
    witness,
    says: {
      'vectors': decimal(vectors), 'table BAR': decimal(tableBar), 'table offset': hex(tableOffset),
      'PBA BAR': decimal(pbaBar), 'PBA offset': hex(pbaOffset),
    },
    ...more,
  }));
  const expected = {
    'vectors': decimal(claim.vectors), 'table BAR': decimal(claim.tableBar), 'table offset': hex(claim.tableOffset),
    'PBA BAR': decimal(claim.pbaBar), 'PBA offset': hex(claim.pbaOffset),
  };
  const comparison = compareWitnesses(COLUMNS, expected, testimonies);
  return outcome(
    comparison.agreed && comparison.present > 0,
    this.utils.matcherHint('toHaveMsix', 'function', 'claim', { isNot: this.isNot === true }),
    `MSI-X of ${nameOf(fn)}`, COLUMNS, expected, testimonies, comparison,
  );
}
