import { describe, expect, test } from '@jest/globals';
import { VirtioInputDevice, type InputEvent } from '../../../src/devices/virtio-input/device.ts';
import { inputConfig, inputAbsInfo, inputDevids, inputEvent, VIRTIO_INPUT_CFG } from '../../../src/devices/virtio-input/layout.ts';
import { MockDriver } from '../../virtio/mock-driver.ts';

function setUp() {
  const log: string[] = [];
  const statuses: InputEvent[] = [];
  const idle: number[] = [];
  const device = new VirtioInputDevice({
    name: 'a name', serial: '', ids: { bustype: 6, vendor: 0x1af4, product: 2, version: 3 },
    codes: new Map([[1, [30, 0x110]], [17, [1]]]), axes: new Map([[0, { min: -5, max: 5, fuzz: 1, flat: 2, resolution: 3 }]]),
    properties: [0, 4], log: (line) => log.push(line), onStatus: (event) => statuses.push(event), onIdle: (dropped) => idle.push(dropped),
  });
  const events = new MockDriver();
  const status = new MockDriver();
  const queues = [events.queue(), status.queue()];
  events.onKick = () => device.process(0, queues[0]);
  status.onKick = () => device.process(1, queues[1]);
  const select = (...bytes: number[]): { size: number; u: Uint8Array } => {
    device.writeConfig(0, Uint8Array.from(bytes));
    const { size, u } = inputConfig.decode(device.config());
    return { size, u: u.subarray(0, size) };
  };
  return { device, events, status, queues, log, statuses, idle, select };
}

const CFG = VIRTIO_INPUT_CFG;
const event = (type: number, code: number, value: number): InputEvent => ({ type, code, value });

describe('the input device', () => {
  test('shows in config space what the driver selects, and size 0 for what there is not', () => {
    const { select } = setUp();
    expect(Buffer.from(select(CFG.VIRTIO_INPUT_CFG_ID_NAME, 0).u).toString()).toBe('a name');
    expect(select(CFG.VIRTIO_INPUT_CFG_ID_SERIAL, 0).size).toBe(0);
    expect(inputDevids.decode(select(CFG.VIRTIO_INPUT_CFG_ID_DEVIDS, 0).u)).toEqual({ bustype: 6, vendor: 0x1af4, product: 2, version: 3 });
    expect([...select(CFG.VIRTIO_INPUT_CFG_PROP_BITS, 0).u]).toEqual([0x11]);
    const keys = select(CFG.VIRTIO_INPUT_CFG_EV_BITS, 1).u;
    expect([keys.length, keys[3], keys[34]]).toEqual([35, 1 << 6, 1]);
    expect(select(CFG.VIRTIO_INPUT_CFG_EV_BITS, 2).size).toBe(0);
    expect(inputAbsInfo.decode(select(CFG.VIRTIO_INPUT_CFG_ABS_INFO, 0).u)).toEqual({ min: 2 ** 32 - 5, max: 5, fuzz: 1, flat: 2, res: 3 });
    expect(select(CFG.VIRTIO_INPUT_CFG_ABS_INFO, 1).size).toBe(0);
    expect(select(0xff, 0xff).size).toBe(0);
  });

  test('takes only select and subsel from a driver that writes all of config space', () => {
    const { device } = setUp();
    device.writeConfig(0, new Uint8Array(136).fill(0xff));
    device.writeConfig(1, new Uint8Array([9]));
    device.writeConfig(8, new Uint8Array(128).fill(1));
    expect([...device.config()].slice(0, 8)).toEqual([0xff, 9, 0, 0, 0, 0, 0, 0]);
    expect(device.config().subarray(8).every((byte) => byte === 0)).toBe(true);
  });

  test('takes no buffer while there is no event, and puts one event into each', () => {
    const { device, events, idle } = setUp();
    for (let i = 0; i < 3; i += 1) events.submit([], [8]);
    expect(events.collect()).toEqual([]);
    device.emit([event(1, 30, 1), event(3, 0, -2)]);
    expect(events.collect().map(({ len, written }) => [len, inputEvent.decode(written)]))
      .toEqual([[8, { type: 1, code: 30, value: 1 }], [8, { type: 3, code: 0, value: 2 ** 32 - 2 }]]);
    expect(idle).toEqual([0]);
  });

  test('keeps events until there are buffers, in order, and gives them on the driver\'s kick', () => {
    const { device, events, idle } = setUp();
    device.emit([1, 2, 3].map((code) => event(1, code, 1)));
    expect(device.pending).toBe(3);
    events.submit([], [8]);
    events.submit([], [16]);
    expect(device.pending).toBe(1);
    expect(idle).toEqual([]);
    events.submit([], [8]);
    expect(events.collect().map(({ len, written }) => [len, inputEvent.decode(written).code])).toEqual([[8, 1], [8, 2], [8, 3]]);
    expect(idle).toEqual([0]);
  });

  test('a reset drops what waits, says so, and forgets the selection', () => {
    const { device, events, log, idle } = setUp();
    device.writeConfig(0, new Uint8Array([1, 0]));
    device.emit([event(1, 30, 1)]);
    device.reset();
    expect([device.pending, idle, log]).toEqual([0, [1], [expect.stringContaining('1 events')]]);
    expect(device.config()[2]).toBe(0);
    events.submit([], [8]);
    expect(events.collect()).toEqual([]);
  });

  test('after a drain it touches the queue no more', async () => {
    const { device, events } = setUp();
    events.submit([], [8]);
    await device.drain(0);
    device.emit([event(1, 30, 1)]);
    expect(events.collect()).toEqual([]);
    expect(device.pending).toBe(1);
  });

  test('hands over what the driver sends on the status queue, signed', () => {
    const { status, statuses } = setUp();
    status.submit([inputEvent.encode({ type: 17, code: 1, value: 2 ** 32 - 1 })]);
    status.submit([inputEvent.encode({ type: 17, code: 1, value: 0 }), new Uint8Array(3)]);
    expect(statuses).toEqual([event(17, 1, -1), event(17, 1, 0)]);
    expect(status.collect().map(({ len }) => len)).toEqual([0, 0]);
  });

  test.each([
    ['a readable event buffer', 0, [new Uint8Array(8)], []],
    ['an event buffer with readable bytes before', 0, [new Uint8Array(1)], [8]],
    ['an event buffer that is too short', 0, [], [7]],
    ['a writable status', 1, [], [8]],
    ['a status that is too short', 1, [new Uint8Array(7)], []],
  ] as const)('breaks on %s', (_, index, readable, writable) => {
    const { device, events, status, log, statuses } = setUp();
    device.emit([event(1, 30, 1)]);
    const driver = index === 0 ? events : status;
    driver.submit(readable, writable);
    expect(driver.failures.map(({ message }) => message)).toEqual([expect.stringContaining('5.8.6.1')]);
    expect(driver.collect()).toEqual([]);
    expect(log).toHaveLength(1);
    expect(statuses).toEqual([]);
    expect(driver.memory.guardsIntact()).toBe(true);
  });
});
