// A suite in a project of its own: `preset: 'rootport'` and nothing else.
import { edu, virtioBlk } from 'rootport';
import { useMachine } from 'rootport/jest';
import { KIB } from './units.ts';
import { MIB } from './units.js'; // as TypeScript projects without allowImportingTsExtensions write it

const vm = useMachine();

test('every queue of a hot-plugged disk has a vector of its own', async () => {
  const disk = virtioBlk({ queues: 1, capacityBytes: 64 * KIB });
  const fn = await vm.plug(disk);

  await expect(fn).toHaveMsix({ vectors: 2, tableBar: 1 });
  await vm.guest.run('dd if=/dev/vda of=/dev/null bs=4k count=4 iflag=direct');
  await expect(fn).toHaveDelivered({ vector: 1, atLeast: 1 });

  await expect(vm.unplug(disk)).resolves.toLeaveNothingBehind();
  await expect(vm).toHaveCleanLog();
});

test('edu has one BAR of 1 MiB', async () => {
  const fn = await vm.plug(edu());
  await expect(fn).toHaveBar({ bar: 0, sizeBytes: MIB, type: 'mem32' });
});
