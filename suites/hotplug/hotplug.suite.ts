// Hot-plug and hot-unplug, ACPI on q35: each kind of device used, idle, with I/O in flight. Gone means gone on
// every side: DEVICE_DELETED, remove() returned, no node, no interrupt, no resource. Two hundred times: cycles.suite.ts;
// every way of hot-plug that a machine has: core.suite.ts and matrix.suite.ts.
import { describe, expect, test } from '@jest/globals';
import { EDU, edu, ivshmem, q35, virtioBlk, virtioRng, type Device, type PciFunction } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine({ machine: q35({ ports: 4, cpus: 2 }), warm: (_, machine) => machine.loadProbe() });

async function disk(fn: PciFunction): Promise<string> {
  return `/dev/${(await vm.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim()}`;
}

/** Each device, how it is used once it is plugged, and the driver that must let go of it. */
const kinds: [string, () => Device, (fn: PciFunction) => Promise<void>, string][] = [
  ['edu, bound to the probe', () => edu(), async (fn) => {
    const probe = await vm.probe(fn);
    await probe.enableVectors({ kind: 'msi' });
    expect(await probe.memRead(0, EDU.IDENTIFICATION, 4)).toBe(0x010000edn);
  }, 'rootport_probe'],
  ['ivshmem, bound to the probe', () => ivshmem({ vectors: 4 }), async (fn) => {
    const probe = await vm.probe(fn);
    expect(await probe.enableVectors({ kind: 'msix', count: 4 })).toHaveLength(4);
  }, 'rootport_probe'],
  ['virtio-blk', () => virtioBlk({ capacityBytes: 2 ** 22, queues: 2 }), async (fn) => {
    const dev = await disk(fn);
    await vm.guest.run(`dd if=/dev/urandom of=${dev} bs=64k count=16 oflag=direct && dd if=${dev} of=/dev/null bs=4k count=64 iflag=direct`);
  }, 'virtio-pci'],
  ['virtio-rng', () => virtioRng({}), async () => {
    const { stdout } = await vm.guest.run('cat /sys/class/misc/hw_random/rng_current; dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c');
    expect(stdout).toMatch(/virtio_rng\.\d+\n64/);
  }, 'virtio-pci'],
];

describe.each(kinds)('%s', (_, make, use, driver) => {
  test('plugged into a running guest it works, unplugged idle it leaves nothing behind, and four times over no interrupt or resource is lost', async () => {
    const resources = async (): Promise<string> => (await vm.guest.run(
      'cat /proc/iomem /proc/ioports; cut -d: -f1 /proc/interrupts; ls /sys/bus/pci/devices /sys/class/block /proc/irq')).stdout;
    const cycle = async (): Promise<void> => {
      const device = make();
      const fn = await vm.plug(device);
      await use(fn);
      expect(await fn.driver()).toBe(driver);
      const report = await vm.unplug(device);
      expect(report.driver).toBe(driver);
      expect(report).toLeaveNothingBehind();
    };
    await cycle(); // the first of a kernel also brings what stays: the driver's module, and bridges' windows
    const before = await resources();
    for (let again = 0; again < 3; again += 1) await cycle();
    expect(await resources()).toBe(before);
    await expect(vm).toHaveCleanLog();
  });
});

test('the probe\'s remove() ran once for one unplug, after its probe()', async () => {
  const device = edu();
  const fn = await vm.plug(device);
  await vm.probe(fn);
  const since = (await vm.probeEvents()).at(-1)?.sequence ?? 0;
  await vm.unplug(device);
  const events = (await vm.probeEvents()).filter((event) => event.sequence > since && event.bdf === fn.bdf);
  expect(events.map((event) => event.kind)).toEqual(['remove', 'removed']);
});

test('virtio-blk unplugged with a request in flight waits for it in remove(), and leaves nothing behind', async () => {
  const device = virtioBlk({ capacityBytes: 2 ** 22 });
  const dev = await disk(await vm.plug(device));
  device.queue(0).hold(); // the device stops completing
  const io = await vm.guest.start(`dd if=${dev} of=/dev/null bs=4k count=1 iflag=direct`);
  await device.queue(0).nextRequest();
  let inFlight = 0;
  const report = await vm.unplug(device, {
    whenRemoving: () => {
      inFlight = device.queue(0).waiting;
      device.queue(0).release();
    },
  });
  expect(inFlight).toBe(1); // remove() had begun, and the request was still the device's
  expect(report.removeReturned).toBe(true);
  expect(report).toLeaveNothingBehind();
  expect((await io.settled()).exitCode).toBe(0); // the read that was in flight was completed, not lost
  await expect(vm).toHaveCleanLog();
});

test('virtio-blk unplugged under a stream of reads ends the stream, and leaves nothing behind', async () => {
  const device = virtioBlk({ capacityBytes: 2 ** 24, queues: 2 });
  const dev = await disk(await vm.plug(device));
  const io = await vm.guest.start(`while dd if=${dev} of=/dev/null bs=4k count=64 iflag=direct 2>/dev/null; do :; done`);
  for (let request = 0; request < 20; request += 1) await device.queue(0).nextRequest();
  expect(await vm.unplug(device)).toLeaveNothingBehind();
  expect((await io.settled()).exitCode).toBe(0);
});

// Without quiesce() and the descriptors that the harness fills, QEMU 7.2 and 10.0 end by SIGSEGV within a few rounds.
test('ivshmem unplugged under fire, eight times over, leaves nothing behind, and QEMU lives', async () => {
  const device = ivshmem({ vectors: 16 });
  for (let round = 0; round < 8; round += 1) {
    const probe = await vm.probe(await vm.plug(device));
    await probe.enableVectors({ kind: 'msix', count: 16 });
    let refusal: unknown;
    const fire = (): void => {
      try {
        for (let vector = 0; vector < 16; vector += 1) device.fire(vector);
        setImmediate(fire);
      } catch (error) {
        refusal = error;
      }
    };
    fire();
    expect(await vm.unplug(device)).toLeaveNothingBehind();
    expect(String(refusal)).toContain('fired after quiesce()'); // and until then it fired
  }
  await expect(vm).toHaveCleanLog();
});

test('virtio-rng unplugged while it is read leaves nothing behind', async () => {
  const device = virtioRng({});
  await vm.plug(device);
  const io = await vm.guest.start('while dd if=/dev/hwrng of=/dev/null bs=64 count=4 2>/dev/null; do :; done');
  expect(await vm.unplug(device)).toLeaveNothingBehind();
  await io.settled();
  await expect(vm).toHaveCleanLog();
});
