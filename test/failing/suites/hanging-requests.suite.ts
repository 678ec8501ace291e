// Must fail: a back end that takes requests and never completes them.
import { expect, test } from '@jest/globals';
import { virtioBlk, type VirtioBlkOptions } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine();

async function read(options: Pick<VirtioBlkOptions, 'hang'>): Promise<void> {
  const fn = await vm.plug(virtioBlk({ capacityBytes: 2 ** 20, ...options }));
  const { stdout } = await vm.guest.run(`ls ${fn.sysfs}/virtio*/block`);
  await vm.guest.run(`dd if=/dev/${stdout.trim()} of=/dev/null bs=4k count=1 iflag=direct`, { timeoutMs: 3000 });
}

test('control: a disk whose back end answers is read', () => read({}));

test('must fail: a disk whose back end hangs is read', () => read({ hang: 'requests' }));

test('control: the next test has a machine that works', async () => {
  expect((await vm.guest.run('uname -s')).stdout.trim()).toBe('Linux');
});
