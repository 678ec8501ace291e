import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { UsageError } from '../../../src/errors.ts';
import { VirtioGpioDevice } from '../../../src/devices/virtio-gpio/device.ts';
import { virtioGpio } from '../../../src/devices/virtio-gpio/index.ts';
import {
  gpioConfig, gpioRequest, VIRTIO_GPIO_DIRECTION as DIRECTION, VIRTIO_GPIO_IRQ_TYPE as IRQ, VIRTIO_GPIO_MSG as MSG,
} from '../../../src/devices/virtio-gpio/layout.ts';
import { MockDriver } from '../../virtio/mock-driver.ts';

const [OK, ERR] = [0, 1];
const [INVALID, VALID] = [0, 1];

function setUp(names: string[] = ['a', '', 'ccc']) {
  const log: string[] = [];
  const changes: [number, string, number][] = [];
  const device = new VirtioGpioDevice({ names, log: (line) => log.push(line), onChange: (...change) => changes.push(change) });
  const requests = new MockDriver();
  const events = new MockDriver();
  const queues = [requests.queue(), events.queue()];
  requests.onKick = () => device.process(0, queues[0]);
  events.onKick = () => device.process(1, queues[1]);
  const request = (type: number, gpio = 0, value = 0, roomBytes = 2): number[] => {
    requests.submit([gpioRequest.encode({ type, gpio, value })], [roomBytes]);
    const [{ len, written }] = requests.collect();
    return [...written.subarray(0, len)];
  };
  return {
    device, requests, events, queues, log, changes, request,
    unmask: (line: number) => events.submit([Uint8Array.of(line & 0xff, line >> 8)], [1]),
    /** Heads of the event buffers given back, and their status. */
    fired: () => events.collect().map(({ id, written }) => [id, written[0]]),
    arm: (line: number, type: number) => [request(MSG.SET_DIRECTION, line, DIRECTION.IN), request(MSG.IRQ_TYPE, line, type)],
  };
}

describe('requests', () => {
  test('give the lines, their names, directions and values', () => {
    const { device, request, changes } = setUp();
    expect(gpioConfig.decode(device.config())).toMatchObject({ ngpio: 3, gpio_names_size: 7 });
    expect(Buffer.from(request(MSG.GET_NAMES, 0, 0, 8)).toString()).toBe('\0a\0\0ccc\0');
    expect(request(MSG.GET_DIRECTION, 2)).toEqual([OK, DIRECTION.NONE]);
    expect(request(MSG.SET_VALUE, 2, 1)).toEqual([OK, 0]);
    expect(request(MSG.SET_DIRECTION, 2, DIRECTION.OUT)).toEqual([OK, 0]);
    expect([request(MSG.GET_DIRECTION, 2), request(MSG.GET_VALUE, 2)]).toEqual([[OK, DIRECTION.OUT], [OK, 1]]);
    expect(changes).toEqual([[2, 'value', 1], [2, 'direction', DIRECTION.OUT]]);
  });

  test('read as inputs what the outside drives', () => {
    const { device, request } = setUp();
    request(MSG.SET_DIRECTION, 0, DIRECTION.IN);
    device.drive(0, 1);
    expect([request(MSG.GET_VALUE, 0), request(MSG.GET_VALUE, 1)]).toEqual([[OK, 1], [OK, 0]]);
  });

  test.each([
    ['a line that there is not', MSG.GET_VALUE, 3, 0], ['a direction that there is not', MSG.SET_DIRECTION, 0, 3], ['a value that is no bit', MSG.SET_VALUE, 0, 2],
    ['a type of request that there is not', 9, 0, 0], ['an interrupt of a line that is no input', MSG.IRQ_TYPE, 0, 1], ['room for no names', MSG.GET_NAMES, 0, 0],
  ])('are refused for %s', (_, type, gpio, value) => {
    const { request, log, changes } = setUp();
    expect(request(type, gpio, value)).toEqual([ERR, 0]);
    expect([log.length, changes]).toEqual([1, []]);
  });

  test('are refused for an interrupt type that there is not, and for another direction while there is one', () => {
    const { request, arm } = setUp();
    arm(0, IRQ.EDGE_RISING);
    expect([request(MSG.IRQ_TYPE, 0, 5), request(MSG.SET_DIRECTION, 0, DIRECTION.OUT)]).toEqual([[ERR, 0], [ERR, 0]]);
  });
});

describe('interrupts', () => {
  test('give the line\'s buffer back on its edge and no other', () => {
    const { device, unmask, fired, arm } = setUp();
    arm(0, IRQ.EDGE_RISING);
    arm(2, IRQ.EDGE_FALLING);
    const [zero, two] = [unmask(0), unmask(2)];
    device.drive(1, 1);
    device.drive(2, 1);
    expect(fired()).toEqual([]);
    device.drive(0, 1);
    device.drive(0, 1);
    expect(fired()).toEqual([[zero, VALID]]);
    device.drive(2, 0);
    expect(fired()).toEqual([[two, VALID]]);
  });

  test('latch an edge that comes while the line is masked, once', () => {
    const { device, unmask, fired, arm } = setUp();
    arm(0, IRQ.EDGE_BOTH);
    for (const level of [1, 0, 1]) device.drive(0, level);
    const first = unmask(0);
    expect(fired()).toEqual([[first, VALID]]);
    unmask(0);
    expect(fired()).toEqual([]);
  });

  test('come again and again while a level lasts, and are not latched', () => {
    const { device, unmask, fired, arm } = setUp();
    arm(0, IRQ.LEVEL_HIGH);
    device.drive(0, 1);
    for (let i = 0; i < 3; i += 1) expect(fired().length + (unmask(0), fired().length)).toBe(1);
    device.drive(0, 0);
    unmask(0);
    expect(fired()).toEqual([]);
  });

  test('that are switched off give the buffer back as none', () => {
    const { device, request, unmask, fired, arm } = setUp();
    arm(0, IRQ.EDGE_BOTH);
    const head = unmask(0);
    request(MSG.IRQ_TYPE, 0, IRQ.NONE);
    device.drive(0, 1);
    expect(fired()).toEqual([[head, INVALID]]);
  });

  test.each([['a line that there is not', 99], ['a line without an interrupt', 1]])('of %s give the buffer back as none', (_, line) => {
    const { unmask, fired, log } = setUp();
    const head = unmask(line);
    expect([fired(), log.length]).toEqual([[[head, INVALID]], 1]);
  });

  test('of a line that has a buffer already give the second back', () => {
    const { unmask, fired, arm } = setUp();
    arm(0, IRQ.EDGE_BOTH);
    unmask(0);
    const second = unmask(0);
    expect(fired()).toEqual([[second, INVALID]]);
  });

  test('a drain puts the buffers that wait back into the ring: a queue started there finds them', async () => {
    const { device, events, queues, unmask, fired, arm } = setUp();
    arm(0, IRQ.EDGE_RISING);
    arm(1, IRQ.EDGE_RISING);
    const heads = [unmask(0), unmask(1)];
    await device.drain(1);
    expect([queues[1].base, queues[1].counts.inFlight, fired()]).toEqual([0, 0, []]);
    device.process(1, events.queue({ base: queues[1].base }));
    device.drive(1, 1);
    expect(fired()).toEqual([[heads[1], VALID]]);
  });

  test('a drain gives back as none what cannot go back, and a reset forgets everything', async () => {
    const { device, unmask, fired, arm } = setUp();
    arm(0, IRQ.EDGE_RISING);
    arm(1, IRQ.EDGE_RISING);
    const heads = [unmask(0), unmask(1)];
    device.drive(1, 1);
    expect(fired()).toEqual([[heads[1], VALID]]);
    await device.drain(1);
    expect(fired()).toEqual([[heads[0], INVALID]]);
    device.reset();
    expect(device.lines.map(({ direction, irqType, latched }) => [direction, irqType, latched])).toEqual(device.lines.map(() => [0, 0, false]));
    device.drive(0, 1);
    expect(fired()).toEqual([]);
  });
});

describe('a hostile driver', () => {
  test.each([
    ['a short request', 0, [new Uint8Array(7)], [2]], ['a request with no room', 0, [new Uint8Array(8)], [1]],
    ['a short event buffer', 1, [new Uint8Array(1)], [1]], ['an event buffer with no room', 1, [new Uint8Array(2)], []],
  ] as const)('breaks the queue with %s', (_, index, readable, writable) => {
    const { requests, events } = setUp();
    const driver = index === 0 ? requests : events;
    driver.submit(readable, writable);
    expect(driver.failures.map(({ message }) => message)).toEqual([expect.stringContaining('5.18.6')]);
  });

  test('with any requests and buffers is answered, and nothing else is written', () => {
    const step = fc.record({ type: fc.integer({ min: 0, max: 8 }), gpio: fc.integer({ min: 0, max: 4 }), value: fc.integer({ min: 0, max: 9 }), level: fc.integer({ min: 0, max: 1 }) });
    fc.assert(fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const { device, requests, events, request, unmask } = setUp();
      for (const { type, gpio, value, level } of steps) {
        expect([OK, ERR]).toContain(request(type, gpio, value, 9)[0]);
        device.drive(gpio % 3, level);
        if (events.freeDescriptors >= 2) unmask(gpio);
        for (const { written } of events.collect()) expect([INVALID, VALID]).toContain(written[0]);
      }
      expect([requests.failures, events.failures]).toEqual([[], []]);
      expect(requests.memory.guardsIntact() && events.memory.guardsIntact()).toBe(true);
    }));
  });
});

describe('virtioGpio', () => {
  test('knows its lines by index and name, and says what there is', () => {
    const gpio = virtioGpio({ lines: ['led', '', 'button'] });
    expect([gpio.line('button').index, gpio.line(0).name, gpio.line(1).direction]).toEqual([2, 'led', 'NONE']);
    gpio.line(1).drive(1);
    expect(gpio.line(1).value).toBe(1);
    expect(() => gpio.line('none')).toThrow(UsageError);
    expect(() => gpio.line('')).toThrow(UsageError);
    expect(() => gpio.line(3)).toThrow('no line 3');
  });

  test.each([[{ lines: 0 }], [{ lines: 1025 }], [{ lines: 1.5 }], [{ lines: ['a', 'a'] }], [{ lines: ['a\0'] }]])('of %j is a UsageError', (options) => {
    expect(() => virtioGpio(options)).toThrow(UsageError);
  });
});
