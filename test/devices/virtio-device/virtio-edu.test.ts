// The worked example of a virtio device (suites/virtio-edu) over a ring in memory: what its driver in the guest
// cannot do to it, a hostile one can.
import { describe, expect, test } from '@jest/globals';
import { QUEUE, VirtioEdu } from '../../../suites/virtio-edu/virtio-edu.ts';
import type { VirtioDevice } from '../../../src/virtio/device.ts';
import { MockDriver } from '../../virtio/mock-driver.ts';

function setUp(index: number) {
  const edu = new VirtioEdu();
  const driver = new MockDriver({ size: 8 });
  const queue = driver.queue();
  const device = edu as unknown as VirtioDevice; // its types are those of the built package
  driver.onKick = () => device.process(index, queue);
  return { edu, driver, queue };
}

const u32 = (value: number): Uint8Array => new Uint8Array(new Uint32Array([value]).buffer);

describe('virtio-edu', () => {
  test('inverts what is written to liveness, alone or with all of config space, and keeps the rest', () => {
    const edu = new VirtioEdu();
    const liveness = (): number => new DataView(edu.config().buffer).getUint32(4, true);
    edu.writeConfig(4, u32(0x12345678));
    expect(liveness()).toBe(0xedcba987);
    const whole = edu.config().slice();
    whole.fill(0xff, 0, 4);
    whole.set(u32(1), 4);
    edu.writeConfig(0, whole);
    expect([...edu.config()]).toEqual([0xed, 0, 0, 1, 0xfe, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    edu.writeConfig(4, Uint8Array.of(0));
    edu.writeConfig(6, u32(0));
    expect(liveness()).toBe(0xfffffffe);
  });

  test.each([[20, 2432902008176640000n, 0], [21, 0n, 1], [0xffffffff, 0n, 1]])('answers the factorial of %i', (n, value, status) => {
    const { driver } = setUp(QUEUE.factorial);
    driver.submit([u32(n)], [9]);
    const [used] = driver.collect();
    expect(used.len).toBe(9);
    const answer = new DataView(used.written.buffer, used.written.byteOffset);
    expect([answer.getBigUint64(0, true), answer.getUint8(8)]).toEqual([value, status]);
  });

  test.each<[string, readonly Uint8Array[], readonly number[]]>([
    ['no number', [], [9]], ['half a number', [new Uint8Array(2)], [9]], ['no room for the answer', [u32(3)], []], ['too little room', [u32(3)], [8]],
  ])('gives a factorial request with %s back with nothing written', (_, readable, writable) => {
    const { driver, queue } = setUp(QUEUE.factorial);
    driver.submit(readable, writable);
    expect(driver.collect()).toMatchObject([{ len: 0 }]);
    expect(queue.broken).toBeUndefined();
  });

  test('echoes as many bytes as it has room for', () => {
    const { driver } = setUp(QUEUE.echo);
    driver.submit([Buffer.from('echo '), Buffer.from('this')], [4, 100]);
    const [used] = driver.collect();
    expect(Buffer.from(used.written.subarray(0, used.len)).toString()).toBe('echo this');
    driver.submit([Buffer.from('too long')], [3]);
    expect(driver.collect()).toMatchObject([{ len: 3 }]);
  });

  test('keeps events until there are buffers for them, and forgets the queue at a reset', () => {
    const { edu, driver } = setUp(QUEUE.events);
    edu.raise(7n);
    driver.submit([], [8]);
    expect(driver.collect()).toMatchObject([{ len: 8, written: Buffer.from([7, 0, 0, 0, 0, 0, 0, 0]) }]);
    driver.submit([], [3]);
    edu.raise(8n);
    expect(driver.collect()).toMatchObject([{ len: 3 }]);
    edu.reset();
    edu.raise(9n);
    expect(driver.collect()).toEqual([]);
    driver.submit([], [8]);
    expect(driver.collect()).toMatchObject([{ len: 8 }]);
    expect(new DataView(edu.config().buffer).getBigUint64(8, true)).toBe(3n);
  });
});
