// The other way round: the front end listens and the back end connects.
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { SystemCallError } from '../../src/errors.ts';
import { UnixListener } from '../../src/native/unix-listener.ts';
import { VhostUserBackend } from '../../src/vhost-user/index.ts';
import { within } from '../../src/wait.ts';
import { openDescriptors } from '../native/open-descriptors.ts';
import { EchoDevice } from './echo-device.ts';
import { FrontEnd } from './front-end.ts';
import type { SharedMemory } from './front-end.ts';

let directory = '';
let path = '';
let before: string[] = [];
let listener: UnixListener;
const arrivals: number[] = [];
let arrived: () => void = () => undefined;
let backend: VhostUserBackend | undefined;
let frontEnds: FrontEnd[] = [];
const errors: Error[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'vhost-'));
  path = join(directory, 's');
  before = openDescriptors();
  listener = new UnixListener({
    path,
    onConnection: (fd) => {
      arrivals.push(fd);
      arrived();
    },
    onError: (error) => errors.push(error),
  });
});
afterEach(async () => {
  for (const frontEnd of frontEnds.reverse()) frontEnd.close();
  frontEnds = [];
  await backend?.close();
  expect(existsSync(path)).toBe(true); // the front end's, not the back end's to remove
  listener.close();
  rmSync(directory, { recursive: true });
  expect(openDescriptors()).toEqual(before);
  expect(errors.splice(0)).toEqual([]);
});

async function accepted(memory?: SharedMemory): Promise<FrontEnd> {
  await within(new Promise<void>((resolve) => {
    arrived = resolve;
    if (arrivals.length > 0) resolve();
  }), { timeoutMs: 2000, what: 'the back end to connect' });
  const frontEnd = new FrontEnd(path, { fd: arrivals.shift() as number, ...(memory === undefined ? {} : { memory }) });
  frontEnds.push(frontEnd);
  return frontEnd;
}

function connect(device = new EchoDevice()): VhostUserBackend {
  backend = VhostUserBackend.connect({ path, device, onError: (error) => errors.push(error) });
  return backend;
}

test('a back end that connects serves the front end, and ends with it', async () => {
  const made = connect();
  expect(made.connected).toBe(true);
  const frontEnd = await accepted();
  const ring = await frontEnd.start();
  ring.driver.submitOne('hello');
  await frontEnd.signalled(ring.callFd);
  expect(ring.driver.collect().map(({ written }) => Buffer.from(written).toString())).toEqual(['HELLO']);
  await made.close();
  await frontEnd.closed();
  expect(made.connected).toBe(false);
});

test('another back end that connects after the first died goes on with what was in flight', async () => {
  const device = new EchoDevice();
  device.holding = true;
  connect(device);
  const first = await accepted();
  await first.negotiate();
  await first.shareMemory();
  const inflight = await first.trackInflight(2, 8);
  const ring = first.prepareRing(0);
  await first.startRing(ring);
  ring.driver.submitOne('kept');
  await within((async () => {
    while (device.held.length === 0) await new Promise((resolve) => setImmediate(resolve));
  })(), { timeoutMs: 2000, what: 'the device to have it' });
  const gone = backend?.crash();
  device.release();
  await gone;
  await backend?.close();
  connect();
  const second = await accepted(first.memory);
  await second.negotiate();
  await second.shareMemory();
  await second.giveInflight(inflight);
  const again = second.adoptRing(ring, 0);
  await second.startRing(again);
  await second.signalled(again.callFd);
  expect(again.driver.collect().map(({ written }) => Buffer.from(written).toString())).toEqual(['KEPT']);
});

test('a back end that crashed connects again at its restart', async () => {
  const made = connect();
  await (await accepted()).start();
  await made.crash({ down: true });
  const back = made.restart({ timeoutMs: 2000 });
  const again = await accepted();
  const ring = await again.start();
  await back;
  ring.driver.submitOne('again');
  await again.signalled(ring.callFd);
  expect(ring.driver.collect().map(({ written }) => Buffer.from(written).toString())).toEqual(['AGAIN']);
});

test('where nobody listens it is a SystemCallError that says so', () => {
  const options = { path: join(directory, 'nobody'), device: new EchoDevice() };
  expect(() => VhostUserBackend.connect(options)).toThrow(SystemCallError);
  expect(() => VhostUserBackend.connect(options)).toThrow('ENOENT');
});
