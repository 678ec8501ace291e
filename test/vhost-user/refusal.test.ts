// Requests that this back end does not do, and config writes that the device does not take: what the front
// end is told, and whether the session goes on.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { ProtocolError } from '../../src/errors.ts';
import { VhostUserBackend } from '../../src/vhost-user/index.ts';
import { header, HEADER_FLAGS } from '../../src/vhost-user/protocol.ts';
import { REQUESTS } from '../../src/vhost-user/requests.ts';
import type { RequestName, RequestSpec } from '../../src/vhost-user/requests.ts';
import { openDescriptors } from '../native/open-descriptors.ts';
import { EchoDevice } from './echo-device.ts';
import { FrontEnd } from './front-end.ts';

let directory = '';
let before: string[] = [];
let device: EchoDevice;
let backend: VhostUserBackend;
let frontEnd: FrontEnd;
let errors: Error[] = [];
let lines: string[] = [];

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'vhost-'));
  before = openDescriptors();
  errors = [];
  lines = [];
  device = new EchoDevice();
  backend = VhostUserBackend.listen({ path: join(directory, 's'), device, onError: (error) => errors.push(error), log: (line) => lines.push(line) });
  frontEnd = new FrontEnd(backend.path);
  await frontEnd.negotiate();
});
afterEach(async () => {
  frontEnd.close();
  await backend.close();
  rmSync(directory, { recursive: true });
  expect(openDescriptors()).toEqual(before);
});

const PAYLOAD_BYTES: Partial<Record<RequestName, number>> = {
  SEND_RARP: 8, NET_SET_MTU: 8, IOTLB_MSG: 32, SET_VRING_ENDIAN: 8, CREATE_CRYPTO_SESSION: 700, CLOSE_CRYPTO_SESSION: 8, VRING_KICK: 8,
  GET_SHARED_OBJECT: 16, SET_DEVICE_STATE_FD: 8,
};
const refused = (Object.entries(REQUESTS) as [RequestName, RequestSpec][]).filter(([, spec]) => spec.refused !== undefined);

function send(name: RequestName, id: number, flags: number): void {
  const size = PAYLOAD_BYTES[name] ?? 0;
  const fds = name === 'SET_DEVICE_STATE_FD' || name === 'GPU_SET_SOCKET' ? [frontEnd.memory.fd] : [];
  frontEnd.raw(Buffer.concat([header.encode({ request: id, flags: flags | HEADER_FLAGS.VERSION, size }), new Uint8Array(size)]), fds);
}

async function goesOn(): Promise<boolean> {
  return (await frontEnd.ask('GET_QUEUE_NUM', undefined)).value === 2n;
}

describe('a request that is refused', () => {
  test.each(refused.filter(([, { reply }]) => reply === 'u64'))('%s is answered in the negative, and the session goes on', async (name, { id }) => {
    send(name, id, 0);
    const { request, flags, value } = await frontEnd.reply();
    expect({ request, flags }).toEqual({ request: id, flags: HEADER_FLAGS.VERSION | HEADER_FLAGS.REPLY });
    expect(value & 0xffn).toBe(1n);
    expect(await goesOn()).toBe(true);
    expect(errors).toEqual([]);
    expect(lines.join('\n')).toContain(`${name} is refused: `);
  });

  test.each(refused.filter(([, { reply }]) => reply === undefined))('%s with NEED_REPLY is not acknowledged, and the session goes on', async (name, { id }) => {
    send(name, id, HEADER_FLAGS.NEED_REPLY);
    expect(await frontEnd.reply()).toMatchObject({ request: id, value: 1n });
    expect(await goesOn()).toBe(true);
    expect(errors).toEqual([]);
  });

  test.each(refused.filter(([, { reply }]) => reply !== 'u64'))('%s without NEED_REPLY ends the session with a ProtocolError that says why', async (name, { id }) => {
    send(name, id, 0);
    await frontEnd.closed();
    expect(errors).toEqual([expect.any(ProtocolError)]);
    expect(errors[0]?.message).toContain(`vhost-user: ${name} is refused: ${(REQUESTS[name] as RequestSpec).refused?.why}`);
  });

  test.each(refused.filter(([, { reply }]) => reply === 'opaque'))('%s has no answer in the negative: NEED_REPLY or not, the session ends', async (name, { id }) => {
    send(name, id, HEADER_FLAGS.NEED_REPLY);
    await frontEnd.closed();
    expect(errors).toEqual([expect.any(ProtocolError)]);
  });

  test('without REPLY_ACK NEED_REPLY is not honoured: the session ends', async () => {
    frontEnd.send('SET_PROTOCOL_FEATURES', 1n);
    send('SEND_RARP', 19, HEADER_FLAGS.NEED_REPLY);
    await frontEnd.closed();
    expect(errors).toHaveLength(1);
  });
});

describe('a message of no number in the specification', () => {
  test.each([0, 45, 99, 0xffffffff])('%i with NEED_REPLY is not acknowledged, and the session goes on', async (id) => {
    frontEnd.raw(Buffer.concat([header.encode({ request: id, flags: 9, size: 5 }), new Uint8Array(5)]), [frontEnd.memory.fd]);
    expect(await frontEnd.reply()).toMatchObject({ request: id, value: 1n });
    expect(await goesOn()).toBe(true);
    expect(errors).toEqual([]);
  });

  test('ends the session otherwise', async () => {
    frontEnd.raw(header.encode({ request: 45, flags: 1, size: 0 }));
    await frontEnd.closed();
    expect(errors[0]?.message).toContain('message 45 is refused: this back end does not know it');
  });
});

describe('a config write', () => {
  const write = (offset: number, flags: number): Promise<{ value: bigint }> =>
    frontEnd.ask('SET_CONFIG', { offset, flags, bytes: new Uint8Array([9]) }, { needReply: true });

  test('of the driver and of a migration reaches the device, one with unknown flags does not', async () => {
    expect((await write(0, 0)).value).toBe(0n);
    expect((await write(1, 1)).value).toBe(0n);
    expect((await write(2, 2)).value).toBe(1n);
    expect(Array.from(device.configSpace.subarray(0, 3))).toEqual([9, 9, 3]);
  });

  test('that the device’s code fails on is refused and reported, and the session goes on', async () => {
    device.writeConfig = () => { throw new TypeError('a bug of the device'); };
    expect((await write(0, 0)).value).toBe(1n);
    expect(await goesOn()).toBe(true);
    expect(errors.map(String)).toEqual(['TypeError: a bug of the device']);
  });
});

describe('the device status', () => {
  test('shows NEEDS_RESET from when a ring broke, past its stop, until the driver resets the device', async () => {
    await frontEnd.shareMemory();
    const ring = frontEnd.prepareRing(0);
    await frontEnd.startRing(ring);
    const status = async (): Promise<bigint> => (await frontEnd.ask('GET_STATUS', undefined)).value;
    frontEnd.send('SET_STATUS', 0xfn);
    expect(await status()).toBe(0xfn);
    ring.driver.availHead(0, 99);
    ring.driver.availIndex(1);
    ring.driver.onKick?.();
    await frontEnd.signalled(ring.errorFd);
    expect(await status()).toBe(0x4fn);
    await frontEnd.ask('GET_VRING_BASE', { index: 0, num: 0 });
    expect(await status()).toBe(0x4fn);
    frontEnd.send('SET_STATUS', 0n);
    expect(await status()).toBe(0n);
    frontEnd.send('SET_STATUS', 0xfn);
    expect(await status()).toBe(0xfn);
  });

  test('is 0 after RESET_DEVICE', async () => {
    frontEnd.send('SET_STATUS', 0xfn);
    await frontEnd.ask('RESET_DEVICE', undefined, { needReply: true });
    expect((await frontEnd.ask('GET_STATUS', undefined)).value).toBe(0n);
  });
});
