// What ends QEMU itself, and what stands between it and a test. Of the crashes that are known:
//
// | | guarded by, and tested |
// |---|---|
// | ivshmem unplugged under fire (7.2, 10.0) | quiesce() before device_del: suites/hotplug/hotplug, "under fire" |
// | ivshmem's handlers on descriptors that are closed (7.2, 10.0) | the descriptors are filled after an unplug. No test: without it 8 rounds of fire, unplug and a disk lived; what the freed handler meets is the heap's chance |
// | ivshmem's chardev used twice: QMP hangs | each plug has a server and a chardev of its own: suites/bare/hotplug, the same object plugged again |
// | edu's DMA out of range, and one of 4096 bytes (7.2) | nothing: the guest writes the register. The error has QEMU's last words: here |
// | virtio-net with MSI-X over vhost-user (7.2, TCG) | the card has INTx there (src/devices/virtio-net): `ROOTPORT_QEMU=7.2`, suites/virtio-net |
// | a memory map changed under several CPUs (8.1 to 11.0, TCG) | one thread for all CPUs: test/qemu/versions.test.ts. Not here: 3 in 50,000 toggles |
// | `info mtree -f` keeps a device from going | plain `info mtree` is read: every unplug after a BAR's claim, suites/bare/matchers |
// | a virtio id that QEMU has no name for (11.1) | a UsageError: test/devices/virtio-device/index.test.ts |
// | an unplug after gate.crash() of a `virtioDevice` without a driver (11.1) | nothing: QEMU's own clean-up does it, when the back end is no more |
// | vfio-user with MSI-X unplugged (11.1) | the unplug is refused before QEMU is asked: suites/bare/own-function, with the crash itself |
// | vfio-user's server gone while QEMU waits for it (11.1) | nothing: the server is in this process, and what its device throws is the error: suites/bare/own-function |
// | a machine restored with private memory and a vhost-user device | restored machines share theirs (src/machine/snapshot.ts) |
import { describe, expect, test } from '@jest/globals';
import { bare, EDU, edu, MachineExitError, q35 } from 'rootport';

describe.each(['7.2', '10.0'])('QEMU %s', (qemu) => {
  test.each([['out of its range', 0x50000n, 64n], ['of 4096 bytes', EDU.DMA_BUFFER, 4096n]])(
    `a DMA of edu's %s ${qemu === '7.2' ? 'ends it, and the next access says so with its last words' : 'is survived'}`, async (_, destination, count) => {
      const device = edu();
      await using machine = await bare({ qemu, machine: q35({ ports: 1 }), devices: [device] });
      const fn = await machine.functionOf(device);
      const dma = async (): Promise<bigint> => {
        for (const [at, value] of [[EDU.DMA_SOURCE, await machine.allocate(4096)], [EDU.DMA_DESTINATION, destination], [EDU.DMA_COUNT, count], [EDU.DMA_COMMAND, BigInt(EDU.DMA_START)]] as const) {
          await fn.memWrite(0, at, 8, value);
        }
        // A tenth of a second later, by a timer of QEMU's.
        const until = performance.now() + 5000;
        while (performance.now() < until && (await fn.memRead(0, EDU.DMA_COMMAND, 8) & BigInt(EDU.DMA_START)) !== 0n);
        return fn.memRead(0, EDU.IDENTIFICATION, 4);
      };
      if (qemu !== '7.2') return expect(await dma()).toBe(0x010000edn);
      const end = await dma().catch((error: unknown) => error);
      expect(end).toBeInstanceOf(MachineExitError);
      return expect((end as Error).message).toMatch(/EDU: DMA range .* out of bounds/);
    });
});
