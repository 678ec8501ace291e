// Wrong answers to the in-tree virtio_rng (drivers/char/hw_random/virtio-rng.c of Linux 6.1), and a back end that
// dies: its reads hang, but unlike virtio_blk's they end with the unplug.
import { describe, expect, test } from '@jest/globals';
import { q35, virtioRng, type VirtioRng } from 'rootport';
import { useMachine } from 'rootport/jest';
import { DiskScene, HANG_MS } from './disk-scene.ts';

const vm = useMachine({ machine: q35({ ports: 2 }) });
const scene = new DiskScene(vm);

describe('virtio_rng', () => {
  const PATTERN = 0xaa;
  async function plugRng(): Promise<VirtioRng> {
    const rng = virtioRng({ source: Uint8Array.of(PATTERN) });
    await vm.plug(rng);
    return rng;
  }
  const readBytes = (count: number): string => `dd if=/dev/hwrng bs=${count} count=1 iflag=fullblock 2>/dev/null`;
  /** A read that hangs until the driver's remove() has it return with less than it asked for. */
  async function hangsUntilUnplugged(rng: VirtioRng, work: () => Promise<void> = async () => {}): Promise<void> {
    const io = await vm.guest.start(`${readBytes(256)} | wc -c`);
    await work();
    await expect(io.settled({ timeoutMs: HANG_MS })).rejects.toThrow(`waited ${HANG_MS / 1000} s`);
    expect(await vm.unplug(rng)).toLeaveNothingBehind();
    expect(Number((await io.wait()).stdout)).toBeLessThan(256);
  }

  // Debian's 6.1.0-56 cuts used.len down to the 64 bytes of the driver's buffer. Its 6.12.95 believes it, and
  // /dev/hwrng hands out kernel memory: a leak that only the bytes show, for the log is clean in both.
  test('given a length beyond its buffer asks again for every 64 bytes, or else hands out what lies behind the buffer', async () => {
    const rng = await plugRng();
    await vm.guest.run(readBytes(64));
    const before = rng.queue(0).counts.completed;
    rng.queue(0).answerWrongLength(4096, 4);
    expect(rng.queue(0).pendingFaults).toBe(4);
    const log = await scene.kernelLog(async () => {
      const notOfTheDevice = Number((await vm.guest.run(`${readBytes(1024)} | tr -d '\\252' | wc -c`)).stdout);
      expect(rng.queue(0).pendingFaults).toBeLessThan(4);
      const given = (rng.queue(0).counts.completed - before) * 64;
      if (given >= 1024) expect(notOfTheDevice).toBe(0);
      else expect(notOfTheDevice).toBeGreaterThan(512);
    });
    expect(log).toEqual([]);
    expect(await vm.unplug(rng)).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });

  test('given a length of 0 asks for nothing more: reads hang, and end with the unplug', async () => {
    const rng = await plugRng();
    rng.queue(0).answerWrongLength(0);
    await hangsUntilUnplugged(rng);
    expect(rng.queue(0).counts.completed).toBe(rng.queue(0).counts.taken); // it is not the device that it waits for
    await expect(vm).toHaveCleanLog();
  });

  test('given a wrong id breaks its queue: reads hang, and end with the unplug', async () => {
    const rng = await plugRng();
    // The kernel's own thread may ask before we do.
    const log = await scene.kernelLog(async () => {
      rng.queue(0).answerWrongId(1000);
      await hangsUntilUnplugged(rng);
    });
    expect(log).toEqual([expect.stringMatching(/^virtio_rng virtio\d+: input:id 1000 out of range$/)]);
  });

  test('whose back end dies with a request in flight hangs, and can be unplugged', async () => {
    const rng = await plugRng();
    rng.queue(0).hold();
    await hangsUntilUnplugged(rng, async () => {
      await rng.queue(0).nextRequest();
      await rng.gate.crash();
      expect(rng.queue(0).waiting).toBe(0); // not held any more: lost
    });
    await expect(vm).toHaveCleanLog();
  });
});
