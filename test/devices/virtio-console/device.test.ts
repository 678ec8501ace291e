// The console device against a mock driver: what it announces, what it carries, and a driver that breaks the rules.
import { expect, describe, test } from '@jest/globals';
import { VirtioConsoleDevice } from '../../../src/devices/virtio-console/device.ts';
import type { VirtioConsoleDeviceOptions } from '../../../src/devices/virtio-console/device.ts';
import { CONTROL, consoleConfig, consoleControl, consoleResize } from '../../../src/devices/virtio-console/layout.ts';
import { KEPT_BYTES_MAX } from '../../../src/devices/virtio-console/port.ts';
import { ProtocolError, UsageError } from '../../../src/errors.ts';
import { MockDriver } from '../../virtio/mock-driver.ts';

const NOBODY = 0xffffffff;

function setUp(options: Partial<VirtioConsoleDeviceOptions> = {}) {
  const device = new VirtioConsoleDevice({
    ports: [{ console: true }, { name: 'data', open: false }], maxPorts: 3, multiport: true, size: undefined, log: () => undefined, ...options,
  });
  const drivers = Array.from({ length: device.queueCount }, (_, index) => {
    const driver = new MockDriver({ size: 16 });
    const queue = driver.queue();
    driver.onKick = () => device.process(index, queue);
    return { driver, queue };
  });
  const start = (): void => drivers.forEach(({ queue }, index) => device.process(index, queue));
  start();
  /** Give the device buffers on a queue to the driver. */
  const give = (index: number, count = 8, lengthBytes = 64): void => {
    for (let i = 0; i < count; i += 1) drivers[index].driver.submit([], [lengthBytes]);
  };
  const send = (index: number, bytes: Uint8Array | string): void => void drivers[index].driver.submit([Buffer.from(bytes)], []);
  const tell = (id: number, event: number, value = 1): void => send(3, consoleControl.encode({ id, event, value }));
  /** What the driver was told since: [event, id, value, more]. */
  const told = (): [string, number, number, string][] => drivers[2].driver.collect().map(({ len, written }) => {
    const { id, event, value } = consoleControl.decode(written);
    const name = Object.entries(CONTROL).find(([, number]) => number === event)?.[0].replace('VIRTIO_CONSOLE_', '') ?? '?';
    return [name, id, value, Buffer.from(written.subarray(8, len)).toString('latin1')];
  });
  const received = (index: number): string[] => drivers[index].driver.collect().map(({ len, written }) => Buffer.from(written.subarray(0, len)).toString());
  return { device, drivers, give, send, tell, told, received, start };
}

describe('control', () => {
  test('announces the ports to a driver that is ready, and what each is once the driver has it', () => {
    const { device, give, tell, told } = setUp({ size: { columns: 80, rows: 24 } });
    give(2, 16);
    expect(told()).toEqual([]);
    tell(NOBODY, CONTROL.VIRTIO_CONSOLE_DEVICE_READY);
    expect(told()).toEqual([['DEVICE_ADD', 0, 1, ''], ['DEVICE_ADD', 1, 1, '']]);
    tell(0, CONTROL.VIRTIO_CONSOLE_PORT_READY);
    expect(told()).toEqual([['CONSOLE_PORT', 0, 1, ''], ['RESIZE', 0, 0, '\x50\0\x18\0'], ['PORT_OPEN', 0, 1, '']]);
    tell(1, CONTROL.VIRTIO_CONSOLE_PORT_READY);
    expect(told()).toEqual([['PORT_NAME', 1, 1, 'data']]);
    device.ports[1].setOpen(true);
    device.ports[1].setOpen(true);
    expect(told()).toEqual([['PORT_OPEN', 1, 1, '']]);
    device.resize({ columns: 132, rows: 43 });
    expect(told()).toEqual([['RESIZE', 0, 0, Buffer.from(consoleResize.encode({ cols: 132, rows: 43 })).toString('latin1')]]);
    expect(device.refused).toEqual([]);
  });

  test('waits for buffers, and tells of a port that comes and goes; its id is given again', () => {
    const { device, give, tell, told } = setUp({ ports: [] });
    tell(NOBODY, CONTROL.VIRTIO_CONSOLE_DEVICE_READY);
    const port = device.addPort({ name: 'x' });
    device.removePort(port.id);
    expect(told()).toEqual([]);
    give(2, 2);
    expect(told()).toEqual([['DEVICE_ADD', 0, 1, ''], ['DEVICE_REMOVE', 0, 1, '']]);
    expect([device.addPort({}).id, device.addPort({}).id, device.addPort({}).id]).toEqual([0, 1, 2]);
    expect(() => device.addPort({})).toThrow(UsageError);
    expect(() => device.removePort(3)).toThrow(UsageError);
  });

  test.each([
    ['a port that there is not', 9, CONTROL.VIRTIO_CONSOLE_PORT_OPEN, 1, 'PORT_OPEN of port 9, which is not there'],
    ['an event that is not the driver\'s', 0, CONTROL.VIRTIO_CONSOLE_RESIZE, 1, 'RESIZE 1 of port 0'],
    ['an event that there is not', 0, 99, 1, 'event 99 1 of port 0'],
    ['a port that is half open', 0, CONTROL.VIRTIO_CONSOLE_PORT_OPEN, 2, 'PORT_OPEN 2 of port 0'],
    ['a driver that failed', NOBODY, CONTROL.VIRTIO_CONSOLE_DEVICE_READY, 0, 'DEVICE_READY 0'],
    ['a port that failed', 0, CONTROL.VIRTIO_CONSOLE_PORT_READY, 0, 'PORT_READY 0'],
  ])('notes %s and goes on', (_, id, event, value, refused) => {
    const { device, drivers, give, tell, told } = setUp();
    give(2);
    tell(id, event, value);
    expect(device.refused).toEqual([expect.stringContaining(refused)]);
    tell(NOBODY, CONTROL.VIRTIO_CONSOLE_DEVICE_READY);
    expect(told()).toHaveLength(2);
    expect(drivers.every(({ queue }) => queue.broken === undefined)).toBe(true);
  });

  test('breaks its queue for messages that are none, and for ones that never end', () => {
    const short = setUp();
    short.send(3, 'short');
    expect(short.drivers[3].queue.broken).toBeInstanceOf(ProtocolError);
    const narrow = setUp();
    narrow.give(2, 1, 7);
    narrow.tell(NOBODY, CONTROL.VIRTIO_CONSOLE_DEVICE_READY);
    expect(narrow.drivers[2].queue.broken).toBeInstanceOf(ProtocolError);
    const endless = setUp();
    for (let i = 0; i < 1000 && endless.drivers[3].queue.broken === undefined; i += 1) {
      endless.tell(NOBODY, CONTROL.VIRTIO_CONSOLE_DEVICE_READY);
      endless.drivers[3].driver.collect();
    }
    expect(endless.drivers[3].queue.broken?.message).toContain('no buffers for the answers');
    endless.device.reset();
    endless.start();
    endless.give(2, 1);
    expect(endless.told()).toEqual([]);
  });
});

describe('bytes', () => {
  test('to the guest wait until it has the port open and buffers, and are cut to fit', async () => {
    const { device, give, tell, received } = setUp();
    const port = device.ports[1];
    const written = port.write('0123456789');
    give(4, 2, 4);
    expect(received(4)).toEqual([]);
    tell(1, CONTROL.VIRTIO_CONSOLE_PORT_OPEN);
    expect(received(4)).toEqual(['0123', '4567']);
    expect(port.unsentBytes).toBe(2);
    give(4, 1, 4);
    await written;
    expect(received(4)).toEqual(['89']);
    tell(1, CONTROL.VIRTIO_CONSOLE_PORT_OPEN, 0);
    await expect(port.write('nobody', { timeoutMs: 10 })).rejects.toThrow('waited 10 ms for port 1 of the guest to take 6 bytes');
  });

  test('from the guest are read as they came, by count, or up to a text that came in pieces', async () => {
    const { device, send, drivers } = setUp();
    const [port] = device.ports;
    for (const piece of ['ab', 'cd', 'ef\nlog', 'in: x']) send(1, piece);
    expect(drivers[1].driver.collect()).toHaveLength(4);
    expect((await port.readExactly(3)).toString()).toBe('abc');
    expect(await port.readUntil('login: ')).toBe('def\nlogin: ');
    expect((await port.read()).toString()).toBe('x');
    send(1, 'left');
    await expect(port.readUntil('never', { timeoutMs: 10 })).rejects.toThrow('waited 10 ms for "never" from port 0');
    expect(port.unreadBytes).toBe(4);
    await expect(port.readExactly(KEPT_BYTES_MAX + 1)).rejects.toThrow(UsageError);
  });

  test('that nobody reads are kept up to a limit, the newest', async () => {
    const { device } = setUp();
    const [port] = device.ports;
    for (let i = 0; i < 17; i += 1) port.receive(new Uint8Array(2 ** 20).fill(i));
    expect({ unread: port.unreadBytes, dropped: port.droppedBytes }).toEqual({ unread: KEPT_BYTES_MAX, dropped: 2 ** 20 });
    expect((await port.readExactly(1))[0]).toBe(1);
  });

  test('of a port that is not there are dropped, and of one that goes nobody waits for any more', async () => {
    const { device, send, drivers, give } = setUp();
    send(7, 'lost');
    give(6, 1);
    expect(device.refused).toEqual(['4 bytes on a port that is not there']);
    const [, port] = device.ports;
    const waits = [port.read(), port.write('x'), port.guestOpened()].map(async (one) => expect(one).rejects.toThrow(ProtocolError));
    device.removePort(1);
    await Promise.all(waits);
    await expect(port.write('y')).rejects.toThrow(UsageError);
    expect(drivers.every(({ queue }) => queue.broken === undefined)).toBe(true);
  });

  test.each([
    ['a receive buffer that the device may read', 0, [Buffer.from('x')], [8]],
    ['a receive buffer of no bytes', 0, [Buffer.from('x')], []],
    ['a transmit buffer that the device may write', 1, [Buffer.from('x')], [8]],
  ])('in %s break the queue', (_, index, readable, writable) => {
    const { device, drivers, tell } = setUp();
    tell(0, CONTROL.VIRTIO_CONSOLE_PORT_OPEN);
    void device.ports[0].write('y').catch(() => undefined);
    drivers[index].driver.submit(readable, writable);
    expect(drivers[index].queue.broken).toBeInstanceOf(ProtocolError);
    device.removePort(0);
  });
});

test('without multiport there are two queues, one console that is open at once, and the size in config space', async () => {
  const { device, give, received } = setUp({ ports: [{ console: true }], maxPorts: 1, multiport: false, size: { columns: 80, rows: 24 } });
  expect(device.queueCount).toBe(2);
  expect(device.features).toBe(0b101n);
  expect(consoleConfig.decode(device.config())).toMatchObject({ cols: 80, rows: 24, max_nr_ports: 1 });
  const written = device.ports[0].write('hi');
  give(0, 1);
  await written;
  expect(received(0)).toEqual(['hi']);
  expect(() => device.removePort(0)).toThrow(UsageError);
});

test('an emergency write is a character, of a part of config space or of all of it', () => {
  const { device } = setUp();
  device.writeConfig(8, Uint8Array.of(0x6f, 0, 0, 0));
  device.writeConfig(0, consoleConfig.encode({ cols: 1, rows: 2, max_nr_ports: 3, emerg_wr: 0x6b }));
  device.writeConfig(0, Uint8Array.of(1, 2));
  expect(device.emergency).toBe('ok');
  expect(consoleConfig.decode(device.config())).toMatchObject({ cols: 0, rows: 0, max_nr_ports: 3, emerg_wr: 0 });
});

test('a reset closes every port for the guest, and what waits goes on waiting', () => {
  const { device, tell, start, give, received } = setUp();
  tell(1, CONTROL.VIRTIO_CONSOLE_PORT_OPEN);
  void device.ports[1].write('later').catch(() => undefined);
  device.reset();
  expect(device.ports.map(({ ready, guestOpen }) => ready || guestOpen)).toEqual([false, false]);
  start();
  give(4, 1);
  expect(received(4)).toEqual([]);
  tell(1, CONTROL.VIRTIO_CONSOLE_PORT_OPEN);
  expect(received(4)).toEqual(['later']);
});
