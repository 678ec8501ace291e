// The in-tree virtio_rng driver over our back end (virtio 1.2, 5.4): the kernel's source of entropy, judged by
// other people's tool (rngtest of rng-tools: FIPS 140-2, 4.9.1), and byte for byte.
import { createCipheriv } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { q35, virtioRng, type VirtioRng } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine({ machine: q35({ ports: 2 }), packages: [{ name: 'rng-tools5', programs: ['rngtest'] }] });
const HWRNG = '/sys/class/misc/hw_random';

/** Plugged, and what the kernel reads /dev/hwrng from. */
async function plugged(rng: VirtioRng): Promise<VirtioRng> {
  await vm.plug(rng);
  await vm.guest.until(`grep -q virtio_rng ${HWRNG}/rng_current`, 'virtio_rng to be the current source', 10_000);
  return rng;
}

/** A stream of bytes that no other seed gives (AES-128 in counter mode), and what was taken of it. */
function seeded(seed: string): { source: (target: Uint8Array) => void; given: () => Buffer } {
  const cipher = createCipheriv('aes-128-ctr', Buffer.from(seed.padEnd(16)), Buffer.alloc(16));
  const given: Buffer[] = [];
  return {
    source(target) {
      const bytes = cipher.update(Buffer.alloc(target.length));
      target.set(bytes);
      given.push(bytes);
    },
    given: () => Buffer.concat(given),
  };
}

/** Verdicts on this many blocks of 20,000 bits each. */
async function rngtest(blocks: number): Promise<{ passed: number; failed: number; exitCode: number | undefined }> {
  const { stderr, exitCode } = await vm.guest.attempt(`rngtest -c ${blocks} </dev/hwrng >/dev/null`, { timeoutMs: 90_000 });
  const count = (what: string): number => Number(new RegExp(`FIPS 140-2 ${what}: (\\d+)`).exec(stderr)?.[1]);
  return { passed: count('successes'), failed: count('failures'), exitCode };
}

test('the driver offers the device as a source, and the kernel takes it, until it is unplugged', async () => {
  const rng = await plugged(virtioRng());
  const { stdout } = await vm.guest.run(`cat ${HWRNG}/rng_available ${HWRNG}/rng_current`);
  expect(stdout).toMatch(/^(.*\s)?virtio_rng\.\d+\s[^]*virtio_rng\.\d+\n$/);
  await vm.unplug(rng);
  expect((await vm.guest.run(`cat ${HWRNG}/rng_available`)).stdout).not.toContain('virtio_rng');
  await expect(vm).toHaveCleanLog();
});

// Before anything that reads by other sizes: a read of less than what the kernel holds (64 bytes) is given that
// buffer's end first, and its beginning goes to the next reader (drivers/char/hw_random/core.c, rng_dev_read).
test.each([false, true])('what the guest reads are the bytes that the device gave, in its order (packed rings: %p)', async (packed) => {
  const { source, given } = seeded(`packed ${packed}`);
  const rng = await plugged(virtioRng({ source, packed }));
  await vm.guest.run('dd if=/dev/hwrng of=/tmp/read bs=512 count=100 iflag=fullblock 2>/dev/null');
  const read = await vm.guest.readFile('/tmp/read');
  expect(read).toHaveLength(51_200);
  expect(given()).toHaveLength(rng.bytesGiven);
  // The kernel's own thread (hwrng) takes some of it now and then, 64 bytes at most.
  const left = leftOut(read, given());
  expect(left.length).toBeLessThanOrEqual(5);
  expect(Math.max(0, ...left)).toBeLessThanOrEqual(64);
  await expect(vm).toHaveCleanLog();
});

describe('rngtest', () => {
  test('passes what comes from the host\'s CSPRNG', async () => {
    const rng = await plugged(virtioRng());
    const { passed, failed } = await rngtest(50);
    expect(passed + failed).toBe(50);
    // Of true randomness 8 blocks in 10,000 fail too: 4 of 50 once in ten million runs.
    expect(failed).toBeLessThanOrEqual(3);
    expect(rng.bytesGiven).toBeGreaterThanOrEqual(50 * 2500);
    expect(rng.queue(0).counts.completed).toBeGreaterThan(0);
    await expect(vm).toHaveCleanLog();
  });

  test('fails every block of a source that gives one byte over and over: the bytes are the device\'s', async () => {
    await plugged(virtioRng({ source: new Uint8Array([0xa5]) }));
    expect(await rngtest(20)).toEqual({ passed: 0, failed: 20, exitCode: 1 });
  });
});

/** Lengths of the pieces of `stream` that are left out in `read`; throws where `read` has what does not come next in it. */
function leftOut(read: Buffer, stream: Buffer): number[] {
  const lengths: number[] = [];
  for (let i = 0, at = stream.indexOf(read.subarray(0, 32)); i < read.length; i += 1, at += 1) {
    if (stream[at] === read[i]) continue;
    const next = at < 0 ? -1 : stream.indexOf(read.subarray(i, i + 32), at);
    if (next < 0) throw new Error(`from byte ${i} on the guest read what the device did not give it there`);
    lengths.push(next - at);
    at = next;
  }
  return lengths;
}
