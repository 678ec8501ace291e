// A virtio device of one's own (virtio-edu.ts), its driver in C (virtio-edu/), and what each makes of the other:
// copy the three for a device of yours. Needs QEMU 11.1, the first that carries any virtio device.
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { virtioDevice, type PciFunction, type PluggableVirtioDevice } from 'rootport';
import { useMachine } from 'rootport/jest';
import { QUEUE, VirtioEdu } from './virtio-edu.ts';

let edu: VirtioEdu;
let device: PluggableVirtioDevice;
let fn: PciFunction;
const vm = useMachine({
  qemu: '11.1',
  warm: async (guest, machine) => {
    const module = await machine.buildModule(fileURLToPath(new URL('./virtio-edu', import.meta.url)));
    expect(module.warnings).toBe('');
    await guest.loadModule(module, 'timeout_ms=500');
  },
  afterBoot: async (machine) => {
    edu = new VirtioEdu();
    device = virtioDevice({ device: edu, name: 'virtio-edu', ready: 'virtio*/identification' });
    fn = await machine.plug(device);
  },
});

const read = async (file: string): Promise<string> => (await vm.guest.run(`cat ${fn.sysfs}/virtio*/${file}`)).stdout.trim();
const write = (file: string, value: string | number) => vm.guest.attempt(`cat >$(ls -d ${fn.sysfs}/virtio*)/${file}`, { input: String(value) });
const u64 = (value: bigint): Uint8Array => new Uint8Array(new BigUint64Array([value]).buffer);

describe('the device', () => {
  test('is 1af4:1055, driven by virtio_edu, by INTx', async () => {
    expect((await vm.guest.run(`cat ${fn.sysfs}/vendor ${fn.sysfs}/device; basename $(readlink ${fn.sysfs}/virtio*/driver)`)).stdout)
      .toBe('0x1af4\n0x1055\nvirtio_edu\n');
    const { stdout } = await vm.guest.run(`name=$(basename $(ls -d ${fn.sysfs}/virtio*)); grep "$name\\$" /proc/interrupts; ls ${fn.sysfs}/msi_irqs 2>/dev/null | wc -l`);
    expect(stdout).toMatch(/IO-APIC +\d+-fasteoi +virtio\d+\n0\n$/);
  });

  test('identifies itself, and inverts what is written to its liveness field', async () => {
    for (const value of [0x00000000, 0xffffffff, 0x12345678, 0xa5a5a5a5]) {
      expect((await write('liveness', value)).exitCode).toBe(0);
      expect([value, Number(await read('liveness'))]).toEqual([value, ~value >>> 0]);
      expect(await read('identification')).toBe('0x010000ed'); // written with it, and kept
    }
  });

  test('computes factorials, and says which are out of range', async () => {
    for (const [n, factorial] of [[0, '1'], [1, '1'], [5, '120'], [20, '2432902008176640000']] as const) {
      expect((await write('factorial', n)).exitCode).toBe(0);
      expect([n, await read('factorial')]).toEqual([n, factorial]);
    }
    for (const n of [21, 0xffffffff]) {
      expect(await write('factorial', n)).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('Numerical result out of range') });
    }
  });

  test('sends back what it is sent, to the last byte of a page', async () => {
    const text = Array.from({ length: 4095 }, (_, i) => String.fromCharCode(0x61 + i % 26)).join('');
    expect((await write('echo', text)).exitCode).toBe(0);
    expect(await read('echo')).toBe(text);
  });

  test('has the driver hear of every event, in order, be there more of them than buffers, and of a change of its config space', async () => {
    const events = Array.from({ length: 20 }, (_, i) => BigInt(i) ** 12n);
    for (const event of events) edu.raise(event);
    await vm.guest.until(`[ $(wc -l <$(ls ${fn.sysfs}/virtio*/events)) = 20 ]`, 'the driver to hear of 20 events', 5000);
    expect(await read('events')).toBe(events.join('\n'));
    expect([await read('raised'), await read('config_changes')]).toEqual(['20', '0']);
    device.gate.interruptConfig();
    await vm.guest.until(`[ $(cat ${fn.sysfs}/virtio*/config_changes) = 1 ]`, 'the driver to hear of the config change', 5000);
  });
});

// What a driver must not take on trust. The in-tree drivers' turn is in suites/faults.
describe('the driver, of a device that does wrong', () => {
  /** What it said of it, in a log that is else clean. */
  async function complaints(): Promise<string[]> {
    await expect(vm).toHaveCleanLog({ since: 'boot' });
    return (await vm.guest.dmesg()).split('\n').flatMap((line) => /\] virtio_edu virtio\d+: (.*)$/.exec(line)?.[1] ?? []);
  }

  test('is told a status that it does not know, a length that is short, or longer than its buffer: EIO, and it goes on', async () => {
    const failed = { exitCode: 1, stderr: expect.stringContaining('Input/output error') };
    device.queue(QUEUE.factorial).hold();
    const store = write('factorial', 5);
    (await device.queue(QUEUE.factorial).nextRequest()).complete({ data: u64(120n), status: 77 });
    expect(await store).toMatchObject(failed);
    device.queue(QUEUE.factorial).release();
    for (const [writtenBytes, said] of [[8, []], [4096, ['an answer of 4096 bytes in a buffer of 9']]] as const) {
      device.queue(QUEUE.factorial).answerWrongLength(writtenBytes);
      expect([writtenBytes, await write('factorial', 6)]).toMatchObject([writtenBytes, failed]);
      expect((await write('factorial', 6)).exitCode).toBe(0);
      expect(await read('factorial')).toBe('720');
      expect(await complaints()).toEqual(said);
    }
  });

  test('waits half a second for an answer, leaves the buffer alone while the device has it, and goes on after', async () => {
    device.queue(QUEUE.echo).hold();
    expect(await write('echo', 'late')).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('timed out') });
    expect(await write('echo', 'more')).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('busy') });
    device.queue(QUEUE.echo).release();
    await vm.guest.until(`cat ${fn.sysfs}/virtio*/echo >/dev/null 2>&1`, 'the driver to have its buffer back', 5000);
    expect((await write('echo', 'again')).exitCode).toBe(0);
    expect(await read('echo')).toBe('again');
    expect(await complaints()).toEqual(['no answer on queue 1']);
  });

  test('reads half of the old and half of the new where config space changes with no config_generation', async () => {
    device.gate.changeConfig(8, u64(0x0_ffff_ffffn));
    expect(await read('raised')).toBe(String(0x0_ffff_ffffn));
    device.gate.changeConfig(8, u64(0x1_0000_0000n), { afterReads: 1 }); // between the two halves of one read
    expect(await read('raised')).toBe(String(0x1_ffff_ffffn));
    expect(await read('raised')).toBe(String(0x1_0000_0000n));
    device.gate.restoreConfig();
    expect(await read('raised')).toBe('0');
  });
});

describe('unplugged', () => {
  test('with a request and eight event buffers in flight it leaves nothing behind, and works when plugged again', async () => {
    device.queue(QUEUE.factorial).hold();
    const store = write('factorial', 3);
    await device.queue(QUEUE.factorial).nextRequest();
    expect(await vm.unplug(device)).toLeaveNothingBehind();
    expect((await store).exitCode).toBe(1);
    device.queue(QUEUE.factorial).release();
    fn = await vm.plug(device);
    expect((await write('factorial', 10)).exitCode).toBe(0);
    expect(await read('factorial')).toBe('3628800');
    await expect(vm).toHaveCleanLog();
  });

  test('and plugged, four times over, it leaves interrupts and resources as they were', async () => {
    const cycled = virtioDevice({ device: new VirtioEdu(), ready: 'virtio*/identification' });
    const resources = async (): Promise<string> => (await vm.guest.run('cat /proc/iomem /proc/ioports; cut -d: -f1 /proc/interrupts; ls /sys/bus/pci/devices /proc/irq')).stdout;
    await vm.plug(cycled);
    await vm.unplug(cycled);
    const before = await resources();
    for (let cycle = 0; cycle < 4; cycle += 1) {
      await vm.plug(cycled);
      expect(await vm.unplug(cycled)).toLeaveNothingBehind();
    }
    expect(await resources()).toBe(before);
    await expect(vm).toHaveCleanLog();
  });
});
