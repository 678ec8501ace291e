// The client against a real QEMU's half of a session: test/fixtures/qmp/qemu7.2-session.txt was
// recorded from QEMU 7.2.22 with a socketpair; `>` lines were sent, `<` lines came back.
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { QmpError } from '../../src/errors.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { socketPair } from './scripted-peer.ts';

const session = readFileSync(new URL('../fixtures/qmp/qemu7.2-session.txt', import.meta.url), 'utf8');

test('the client holds the recorded session with QEMU 7.2, word for word', async () => {
  const { near, far, remove } = await socketPair();
  const script = session.trimEnd().split('\n');
  const sent: unknown[] = [];
  const expected: unknown[] = script.filter((line) => line.startsWith('> ')).map((line) => JSON.parse(line.slice(2)) as unknown);
  const play = (): void => {
    while (script[0]?.startsWith('< ')) far.write(`${script.shift()?.slice(2)}\r\n`);
    if (script.length === 0) far.end();
  };
  far.on('data', (bytes: Buffer) => {
    for (const line of bytes.toString().trimEnd().split('\n')) {
      sent.push(JSON.parse(line));
      script.shift();
      play();
    }
  });
  play();

  const qmp = await QmpClient.connect(near, { timeoutMs: 2000 });
  expect(qmp.greeting.version).toMatchObject({ major: 7, minor: 2, micro: 22 });
  expect(await qmp.execute('query-status')).toEqual({ status: 'prelaunch', singlestep: false, running: false });
  const missing = await qmp.execute('device_del', { id: 'nothere' }).catch((error: unknown) => error);
  expect(missing).toBeInstanceOf(QmpError);
  expect(missing).toMatchObject({ errorClass: 'DeviceNotFound', description: "Device 'nothere' not found" });
  await expect(qmp.execute('no-such-command')).rejects.toMatchObject({ errorClass: 'CommandNotFound' });
  expect(await qmp.hmp('info usernet')).toMatch(/^Hub -1 \(net0\):\n.*\n {2}TCP\[HOST_FORWARD\] /);
  const resumed = qmp.expectEvent('RESUME', () => true, { timeoutMs: 2000 });
  await qmp.execute('cont');
  expect((await resumed).timestampMs).toBeGreaterThan(1.6e12);
  await qmp.execute('stop');
  await qmp.execute('device_add', { driver: 'pci-testdev', bus: 'rp1', id: 'late' });
  await expect(qmp.execute('device_add', { driver: 'pci-testdev', bus: 'rp1', id: 'late' })).rejects.toThrow("Duplicate device ID 'late'");
  expect(await qmp.hmp('info nonsense')).toBe("unknown command: 'info nonsense'\n");
  expect(await qmp.execute('query-pci')).toHaveLength(1);
  await qmp.execute('quit');

  expect(sent).toEqual(expected);
  expect(qmp.events.map(({ event }) => event)).toEqual(['RESUME', 'STOP', 'SHUTDOWN']);
  await remove();
});
