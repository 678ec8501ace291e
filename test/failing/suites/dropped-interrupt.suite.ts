// Must fail: a device that completes a request and drops the one interrupt of it.
import { expect, test } from '@jest/globals';
import { virtioBlk } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine();

async function readOnce(drops: number): Promise<void> {
  const disk = virtioBlk({ capacityBytes: 2 ** 20 });
  const fn = await vm.plug(disk);
  const { stdout } = await vm.guest.run(`ls ${fn.sysfs}/virtio*/block`);
  const read = `dd if=/dev/${stdout.trim()} of=/dev/null bs=4k count=1 iflag=direct`;
  await vm.guest.run(read); // behind the kernel's own look for partitions
  const since = await vm.mark(fn);
  disk.queue(0).dropInterrupts(drops);
  const io = await vm.guest.start(read);
  try {
    await expect(fn).toHaveDelivered({ vector: 1, exactly: 1, since, timeoutMs: 3000 });
  } finally {
    disk.queue(0).interrupt(); // the driver waits for one until it gets one
    await io.wait();
  }
  await vm.unplug(disk);
}

test('control: the interrupt of a read is delivered', () => readOnce(0));

test('must fail: the interrupt of a read is dropped', () => readOnce(1));
