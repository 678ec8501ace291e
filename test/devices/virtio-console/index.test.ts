import { expect, test } from '@jest/globals';
import { virtioConsole } from '../../../src/devices/virtio-console/index.ts';
import { UsageError } from '../../../src/errors.ts';

test.each([
  [{ maxPorts: 0 }, 'maxPorts 0 is not 1 to 127'],
  [{ maxPorts: 128 }, 'maxPorts 128'],
  [{ maxPorts: 1, ports: [{}, {}] }, '2 ports are more than maxPorts, 1'],
  [{ multiport: false, ports: [{ name: 'x' }] }, 'without multiport there is one port'],
  [{ multiport: false, ports: [] }, 'without multiport there is one port'],
  [{ ports: [{ name: 'x'.repeat(256) }] }, 'a name of 256 bytes'],
  [{ size: { columns: 0, rows: 25 } }, 'a console of 0 columns and 25 rows'],
])('virtioConsole(%j) is a UsageError', (options, message) => {
  expect(() => virtioConsole(options)).toThrow(UsageError);
  expect(() => virtioConsole(options)).toThrow(message);
});

test('it rides on the device model for any virtio device, with queues for all ports that there can be', async () => {
  const device = virtioConsole({ ports: [{ console: true }, { name: 'a' }], maxPorts: 5 });
  expect(device).toMatchObject({ kind: 'virtio-console', guest: { ready: 'virtio*/virtio-ports/vport*p1' } });
  expect(device.queue(11).index).toBe(11);
  expect(() => device.queue(12)).toThrow(UsageError);
  expect(device.port(1).name).toBe('a');
  expect(() => device.port(2)).toThrow('there is no port 2');
  device.removePort(device.port(0));
  expect(device.ports.map(({ id }) => id)).toEqual([1]);
  expect(() => virtioConsole({ multiport: false }).resize({ columns: 1, rows: 1 })).toThrow('Make it with `size`');
});
