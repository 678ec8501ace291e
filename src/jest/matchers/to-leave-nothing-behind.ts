// toLeaveNothingBehind: after an unplug the driver's remove() has returned, and neither QEMU nor the guest
// shows anything of the function any more.
import type { MatcherContext } from 'expect';
import { UsageError } from '../../errors.ts';
import type { UnplugReport } from '../../machine/unplug.ts';
import { compareWitnesses, type Testimony } from '../../report/witness-table.ts';
import { outcome, type MatcherResult } from './format.ts';

const COLUMNS = ['verdict'] as const;
const NO_GUEST = 'there is no operating system';
const NO_REMOVE = { 'no driver': 'no driver was bound', 'no witness': 'this kernel has no kprobes to see it by', 'no guest': NO_GUEST } as const;

export function toLeaveNothingBehind(this: MatcherContext, received: unknown): MatcherResult {
  const report = reportOf(received);
  const { removeReturned, leftovers, driver } = report;
  const of = (witness: 'vmm' | 'guest' | 'device'): Testimony[] => {
    const name = { vmm: 'VMM', guest: 'guest', device: 'device' }[witness];
    return leftovers.filter((one) => one.witness === witness)
      .map(({ where, what }) => ({ witness: `${name}: ${where}`, says: { verdict: 'left behind' }, note: what }));
  };
  const remove: Testimony = typeof removeReturned === 'string'
    ? { witness: 'guest: driver\'s remove()', says: {}, missing: NO_REMOVE[removeReturned] }
    : { witness: 'guest: driver\'s remove()', says: { verdict: removeReturned ? 'gone' : 'did not return' }, note: driver ?? '' };
  const clean = (name: string, what: string, mine: Testimony[]): Testimony[] => (mine.length > 0 ? mine : [{ witness: name, says: { verdict: 'gone' }, note: what }]);
  const testimonies: Testimony[] = [
    { witness: 'VMM: DEVICE_DELETED', says: { verdict: 'gone' }, note: `after ${Math.round(report.deletedAfterMs)} ms` },
    ...clean('VMM: query-pci', 'it shows no such device', of('vmm')),
    remove,
    ...(removeReturned === 'no guest' ? [{ witness: 'guest: sysfs, interrupts, iomem', says: {}, missing: NO_GUEST }]
      : clean('guest: sysfs, interrupts, iomem', 'nothing of it is left', of('guest'))),
    ...of('device'),
  ];
  const expected = { verdict: 'gone' };
  const comparison = compareWitnesses(COLUMNS, expected, testimonies);
  return outcome(
    comparison.agreed, this.utils.matcherHint('toLeaveNothingBehind', 'report', '', { isNot: this.isNot === true }),
    `${report.bdf} (${report.kind}), unplugged`, COLUMNS, expected, testimonies, comparison,
  );
}

function reportOf(received: unknown): UnplugReport {
  if (typeof received === 'object' && received !== null && 'leftovers' in received && 'removeReturned' in received) return received as UnplugReport;
  throw new UsageError(`toLeaveNothingBehind takes the report of an unplug, and got ${received instanceof Promise ? 'a promise' : typeof received}`, {
    hint: 'expect(await vm.unplug(device)).toLeaveNothingBehind(), or await expect(vm.unplug(device)).resolves.toLeaveNothingBehind()',
  });
}
