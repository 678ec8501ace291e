// The in-tree virtio_input driver over our input device: keys and axes that the test moves come out of evdev as the
// events they are, and LEDs that the guest's kernel sets come back.
import { expect, test } from '@jest/globals';
import { KEYBOARD, MOUSE, q35, TABLET, virtioInput, type PciFunction } from 'rootport';
import { useMachine } from 'rootport/jest';

// QEMU's vhost-user-input-pci wants KVM up to 8.2 ("vhost initialization failed: requires kvm").
const qemu = process.env['ROOTPORT_QEMU'] === '7.2' ? { qemu: '10.0' } : {};
const vm = useMachine({ machine: q35({ ports: 4 }), ...qemu });
const SYN = [0, 0, 0];
/** struct input_event of a 64-bit kernel: two words of time, type, code, value. */
const EVENT_BYTES = 24;
/** The driver has 64 buffers for events, a report is three. */
const REPORTS = 200;

async function under(fn: PciFunction, pattern: string): Promise<string> {
  return (await vm.guest.run(`ls -d ${fn.sysfs}/virtio*/input/input*/${pattern}`)).stdout.trim();
}

interface Reader {
  /** Wait until this many events were read. */
  reached(count: number): Promise<void>;
  /** Wait until all were read: type, code and value of each. */
  all(): Promise<number[][]>;
}

/** Have the guest read `count` events. Resolves once it has the device open: evdev keeps nothing for later. */
async function read(fn: PciFunction, count: number): Promise<Reader> {
  const node = `/dev/input/${(await under(fn, 'event*')).split('/').at(-1)}`;
  const reader = await vm.guest.start(`rm -f /tmp/events; dd if=${node} of=/tmp/events bs=${EVENT_BYTES} count=${count} iflag=fullblock 2>/dev/null`);
  await vm.guest.until(`ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q ' ${node}$'`, 'the reader to open the device', 10_000);
  return {
    reached: (events) => vm.guest.until(`[ $(stat -c %s /tmp/events) -ge ${events * EVENT_BYTES} ]`, `${events} events to be read`, 30_000),
    async all() {
      await reader.wait();
      const bytes = await vm.guest.readFile('/tmp/events');
      return Array.from({ length: bytes.length / EVENT_BYTES }, (_, i) => {
        const at = i * EVENT_BYTES + 16;
        return [bytes.readUInt16LE(at), bytes.readUInt16LE(at + 2), bytes.readInt32LE(at + 4)];
      });
    },
  };
}

test('a keyboard plugged into a running guest has the name, the keys and the ids it was made with, and tells of its LEDs', async () => {
  const input = virtioInput({ name: 'a test\'s keyboard', serial: 'kbd-7', ids: { vendor: 0x1234, product: 0x5678 }, capabilities: KEYBOARD });
  const fn = await vm.plug(input);
  const { stdout } = await vm.guest.run(`cd ${await under(fn, '')}; cat name uniq id/vendor id/product capabilities/ev`);
  // EV_SYN, EV_KEY, EV_MSC, EV_LED
  expect(stdout.split('\n')).toEqual(['a test\'s keyboard', 'kbd-7', '1234', '5678', '20013', '']);
  await expect(fn).toHaveMsix({ vectors: 3 });
  const led = await under(fn, '*::capslock'); // what the guest sets comes back over the status queue
  for (const value of [1, 0]) {
    await vm.guest.run(`echo ${value} >${led}/brightness`);
    expect(await input.nextStatus()).toEqual({ type: 'EV_LED', code: 'LED_CAPSL', value });
  }
  expect(input.queue(1).counts.completed).toBe(2);
  expect(await vm.unplug(input)).toLeaveNothingBehind();
  await expect(vm).toHaveCleanLog();
});

test('keys pressed by the test come out of evdev in order, each report ended by a SYN, over the event queue\'s own vector, and not before the device lets them go', async () => {
  const input = virtioInput();
  const fn = await vm.plug(input);
  const mark = await vm.mark(fn);
  const events = await read(fn, 12);
  input.key('KEY_A');
  input.press('KEY_LEFTSHIFT');
  input.release(42);
  await events.reached(8);
  input.queue(0).hold();
  input.key('KEY_ENTER');
  await input.queue(0).nextRequest();
  expect(input.pending).toBe(4);
  input.queue(0).release();
  await input.delivered();
  expect(await events.all()).toEqual([[1, 30, 1], SYN, [1, 30, 0], SYN, [1, 42, 1], SYN, [1, 42, 0], SYN, [1, 28, 1], SYN, [1, 28, 0], SYN]);
  await expect(fn).toHaveDelivered({ vector: 1, atLeast: 1, since: mark });
  await expect(fn).toHaveDelivered({ vector: 2, exactly: 0, since: mark });
});

test('200 reports, more than there are event buffers, arrive whole and in order', async () => {
  const input = virtioInput({ capabilities: MOUSE });
  const fn = await vm.plug(input);
  const events = await read(fn, 3 * REPORTS);
  for (let report = 1; report <= REPORTS; report += 1) {
    input.move({ REL_X: report, REL_Y: -1 });
    // evdev keeps 64 events for a reader, and drops them all when there are more.
    if (report % 20 === 0) await events.reached(report * 3);
  }
  const got = await events.all();
  expect(got).toHaveLength(3 * REPORTS);
  expect(got.filter(([type]) => type === 2).map(([, code, value]) => [code, value]))
    .toEqual(Array.from({ length: REPORTS }, (_, i) => [[0, i + 1], [1, -1]]).flat());
});

test('absolute axes have the ranges they were made with, and points arrive as they were set', async () => {
  const input = virtioInput({ capabilities: { ...TABLET, absolute: { ABS_X: { min: -100, max: 100 }, ABS_Y: { min: 0, max: 0x7fff } } } });
  const fn = await vm.plug(input);
  const events = await read(fn, 5);
  input.point({ ABS_X: -42, ABS_Y: 1000 });
  input.point({ ABS_X: 42, ABS_Y: 1000 }); // the input core passes on what changed
  expect(await events.all()).toEqual([[3, 0, -42], [3, 1, 1000], SYN, [3, 0, 42], SYN]);
});

test('unplugged while it is read, with a key held down, it leaves nothing behind and the reader ends', async () => {
  const input = virtioInput();
  const fn = await vm.plug(input);
  const node = `/dev/input/${(await under(fn, 'event*')).split('/').at(-1)}`;
  const reader = await vm.guest.start(`cat ${node} >/dev/null`);
  await vm.guest.until(`ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q ' ${node}$'`, 'the reader to open the device', 10_000);
  input.press('KEY_SPACE');
  const report = await vm.unplug(input, {
    whenRemoving: () => {
      for (let i = 0; i < 100; i += 1) input.key('KEY_A'); // nobody takes these any more
    },
  });
  expect(report.removeReturned).toBe(true);
  expect(report).toLeaveNothingBehind();
  expect((await reader.settled()).exitCode).not.toBe(0);
  expect(input.pending).toBe(0);
  await expect(vm).toHaveCleanLog();
});
