// Must fail: a device that fires another queue's vector than that of the request.
import { expect, test } from '@jest/globals';
import { q35, virtioBlk } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine({ machine: q35({ cpus: 2 }) });

async function readOnQueue0(firedAs: number | undefined): Promise<void> {
  const disk = virtioBlk({ capacityBytes: 2 ** 20, queues: 2 });
  const fn = await vm.plug(disk);
  const { stdout } = await vm.guest.run(`ls ${fn.sysfs}/virtio*/block`);
  const read = `taskset 1 dd if=/dev/${stdout.trim()} of=/dev/null bs=4k count=1 iflag=direct`;
  await vm.guest.run(read); // behind the kernel's own look for partitions
  const since = await vm.mark(fn);
  disk.queue(0).misdirectInterrupts(firedAs);
  const io = await vm.guest.start(read);
  try {
    await expect(fn).toHaveDelivered({ vector: 1, exactly: 1, since, timeoutMs: 3000 });
  } finally {
    disk.queue(0).misdirectInterrupts(undefined);
    disk.queue(0).interrupt(); // the driver waits for one until it gets one
    await io.wait();
  }
  await vm.unplug(disk);
}

test('control: queue 0 fires its own vector', () => readOnQueue0(undefined));

test('must fail: queue 0 fires the vector of queue 1', () => readOnQueue0(1));
