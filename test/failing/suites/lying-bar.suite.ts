// Must fail: a device whose data sheet says that BAR 2 has 1 MiB, and whose BAR 2 has 2 MiB.
import { expect, test } from '@jest/globals';
import { ivshmem } from 'rootport';
import { useMachine } from 'rootport/jest';

const DATA_SHEET = { bar: 2, sizeBytes: 1 << 20, type: 'mem64', prefetchable: true } as const;
const vm = useMachine();

test('control: a BAR of the size that the data sheet says', async () => {
  const fn = await vm.plug(ivshmem({ sharedBytes: 1 << 20 }));
  await vm.probe(fn); // decodes
  await expect(fn).toHaveBar(DATA_SHEET);
});

test('must fail: a BAR of another size than the data sheet says', async () => {
  const fn = await vm.plug(ivshmem({ sharedBytes: 2 << 20 }));
  await vm.probe(fn);
  await expect(fn).toHaveBar(DATA_SHEET);
});
