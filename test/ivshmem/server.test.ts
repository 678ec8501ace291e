import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { DeadlineError, ProtocolError, UsageError } from '../../src/errors.ts';
import { IVSHMEM_GUEST_PEER, IVSHMEM_HOST_PEER, IvshmemServer } from '../../src/ivshmem/index.ts';
import type { IvshmemServerOptions } from '../../src/ivshmem/index.ts';
import { mapFile, readEventfd, sendMessage, signalEventfd, unmapFile } from '../../src/native/index.ts';
import { within } from '../../src/wait.ts';
import { openDescriptors } from '../native/open-descriptors.ts';
import { IvshmemClient } from './client.ts';

let directory = '';
let before: string[] = [];
let servers: IvshmemServer[] = [];
let clients: IvshmemClient[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-'));
  before = openDescriptors();
});
afterEach(async () => {
  for (const client of clients) client.close();
  for (const server of servers) await server.close();
  clients = [];
  servers = [];
  rmSync(directory, { recursive: true });
  expect(openDescriptors()).toEqual(before);
});

function listen(options: Partial<IvshmemServerOptions> = {}): IvshmemServer {
  const server = IvshmemServer.listen({ path: join(directory, 's'), vectors: 4, sharedBytes: 4096, ...options });
  servers.push(server);
  return server;
}

function connect(server: IvshmemServer): IvshmemClient {
  const client = new IvshmemClient(server.path);
  clients.push(client);
  return client;
}

/** The eventfds that a client was handed for a peer, in vector order. */
async function eventfds(client: IvshmemClient, peer: number, messageCount: number): Promise<number[]> {
  const messages = await client.received(messageCount);
  return messages.slice(2).flatMap(({ value, fds }) => (value === BigInt(peer) ? fds : []));
}

describe('the handover', () => {
  test('a client gets version, its id, the memory, the host’s doorbells and its own vectors, in this order', async () => {
    const server = listen({ vectors: 3, doorbells: 2 });
    const client = connect(server);
    await server.ready();
    const messages = await client.received(8);
    expect(messages.map(({ value, fds }) => [value, fds.length])).toEqual([[0n, 0], [1n, 0], [-1n, 1], [0n, 1], [0n, 1], [1n, 1], [1n, 1], [1n, 1]]);
    expect(client.messages).toHaveLength(8);
  });

  test('the memory handed over is the memory the server sees', async () => {
    const server = listen({ sharedBytes: 65536 });
    const client = connect(server);
    const [memoryFd] = (await client.received(3))[2]?.fds as [number];
    const theirs = mapFile(memoryFd, 0, 65536);
    new Uint32Array(server.memory)[16383] = 0xfeedface;
    expect(new Uint32Array(theirs)[16383]).toBe(0xfeedface);
    unmapFile(theirs);
  });

  test('2048 vectors and as many doorbells all arrive, though the socket does not hold them at once', async () => {
    const server = listen({ vectors: 2048, doorbells: 2048 });
    const client = connect(server);
    await server.ready();
    const vectors = await eventfds(client, IVSHMEM_GUEST_PEER, 3 + 4096);
    expect(vectors).toHaveLength(2048);
    expect(await eventfds(client, IVSHMEM_HOST_PEER, 3 + 4096)).toHaveLength(2048);
    server.fire(2047);
    // What is left to wait for is quiet: a poll for room that nobody needs would never let the loop rest.
    // On a busy host a rest may be long in coming: it is waited for.
    const busy = async (): Promise<boolean> => {
      const before = performance.eventLoopUtilization();
      await new Promise((resolve) => setTimeout(resolve, 30));
      return performance.eventLoopUtilization(before).utilization > 0.5;
    };
    while (await busy());
    expect([vectors[2047], vectors[2046]].map((fd) => readEventfd(fd as number))).toEqual([1, 0]);
  });

  test('it is not ready before the client has read everything', async () => {
    const server = listen();
    const client = connect(server);
    client.stall();
    await expect(server.ready({ timeoutMs: 30 })).rejects.toThrow(DeadlineError);
    client.resume();
    await server.ready();
    expect(client.messages).toHaveLength(3 + 4 + 4);
  });

  test('without a client, ready says what it waited for', async () => {
    const server = listen();
    await expect(server.ready({ timeoutMs: 5 })).rejects.toThrow(/QEMU to connect to the ivshmem server at .* and read its 4 vectors/);
  });

  test('a client that leaves before it read its vectors fails the wait at once', async () => {
    const server = listen();
    const client = connect(server);
    client.stall();
    const ready = server.ready();
    await new Promise((resolve) => setImmediate(resolve));
    clients = [];
    client.close();
    await expect(ready).rejects.toThrow(ProtocolError);
  });
});

describe('interrupts', () => {
  test('each fire reaches its own vector only, and both sides count the same', async () => {
    const server = listen();
    const client = connect(server);
    await server.ready();
    const vectors = await eventfds(client, IVSHMEM_GUEST_PEER, 11);
    server.fire(1);
    server.fire(3);
    server.fire(3);
    expect(vectors.map(readEventfd)).toEqual([0, 1, 0, 2]);
    expect(server.fired()).toEqual(new Map([[1, 1], [3, 2]]));
  });

  test('the guest’s doorbell is heard with its number', async () => {
    let heard = (_: [number, number]): void => undefined;
    const ring = new Promise<[number, number]>((resolve) => (heard = resolve));
    const server = listen({ onDoorbell: (doorbell, count) => heard([doorbell, count]) });
    const client = connect(server);
    const doorbells = await eventfds(client, IVSHMEM_HOST_PEER, 11);
    signalEventfd(doorbells[2] as number);
    expect(await within(ring, { timeoutMs: 2000, what: 'the doorbell' })).toEqual([2, 1]);
    expect(server.rung()).toEqual(new Map([[2, 1]]));
  });

  test('firing into the void is refused: no client, no such vector, after quiesce', async () => {
    const server = listen();
    expect(() => server.fire(0)).toThrow('no QEMU is connected');
    connect(server);
    await server.ready();
    expect(() => server.fire(4)).toThrow('vectors are 0 to 3');
    expect(() => server.fire(-1)).toThrow(UsageError);
    await server.quiesce();
    expect(() => server.fire(0)).toThrow(UsageError);
    expect(server.fired().size).toBe(0);
  });

  test('quiesce waits until the client took what was fired', async () => {
    const server = listen();
    const client = connect(server);
    await server.ready();
    const vectors = await eventfds(client, IVSHMEM_GUEST_PEER, 11);
    server.fire(2);
    let quiet = false;
    const quiesced = server.quiesce({ timeoutMs: 2000 }).then(() => (quiet = true));
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(quiet).toBe(false);
    expect(readEventfd(vectors[2] as number)).toBe(1);
    await quiesced;
  });

  test('quiesce takes back what the client leaves', async () => {
    const server = listen();
    const client = connect(server);
    await server.ready();
    const vectors = await eventfds(client, IVSHMEM_GUEST_PEER, 11);
    server.fire(2);
    await server.quiesce({ timeoutMs: 10 });
    expect(readEventfd(vectors[2] as number)).toBe(0);
  });
});

describe('lifetimes and bad peers', () => {
  test('a second client is turned away and the first goes on', async () => {
    const server = listen();
    connect(server);
    await server.ready();
    await connect(server).hungUp();
    expect(server.connected).toBe(true);
  });

  test('after the client left another is served, without the first one’s interrupts', async () => {
    const server = listen();
    const first = connect(server);
    await server.ready();
    server.fire(0);
    clients = [];
    first.close();
    await within(
      (async () => {
        while (server.connected) await new Promise((resolve) => setImmediate(resolve));
      })(),
      { timeoutMs: 2000, what: 'the server to notice' },
    );
    const second = connect(server);
    await server.ready();
    expect((await eventfds(second, IVSHMEM_GUEST_PEER, 11)).map(readEventfd)).toEqual([0, 0, 0, 0]);
  });

  test('a client that talks is hung up on, and what it sent is closed', async () => {
    const lines: string[] = [];
    const server = listen({ log: (line) => lines.push(line) });
    const client = connect(server);
    await server.ready();
    sendMessage(client.fd, new Uint8Array(8), [client.fd, client.fd]);
    await client.hungUp();
    expect(lines.join('\n')).toContain('the client sent 8 bytes');
  });

  test('close hangs up, removes the socket, empties the memory, and may be called again', async () => {
    const server = listen();
    const client = connect(server);
    await server.ready();
    const view = new Uint8Array(server.memory);
    await server.close();
    await server.close();
    await client.hungUp();
    expect(existsSync(server.path)).toBe(false);
    expect(view.length).toBe(0);
    expect(() => server.fire(0)).toThrow(UsageError);
  });

  test.each([
    [{ vectors: 0 }, '1 to 2048'],
    [{ vectors: 2049 }, '1 to 2048'],
    [{ vectors: 1.5 }, '1 to 2048'],
    [{ doorbells: 5 }, 'at most as many as vectors'],
    [{ sharedBytes: 5000 }, 'power of two'],
    [{ sharedBytes: 1024 }, 'power of two'],
  ])('%j is refused by a UsageError that says what is possible', (options, said) => {
    expect(() => listen(options)).toThrow(UsageError);
    expect(() => listen(options)).toThrow(said);
  });

  test('a socket that cannot be made leaves no descriptor behind', () => {
    expect(() => listen({ path: join(directory, 'none', 's') })).toThrow('ENOENT');
  });
});
