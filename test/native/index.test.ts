import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { EnvironmentError, SystemCallError } from '../../src/errors.ts';
import {
  acceptUnix, adoptEventfd, closeFd, connectUnix, createEventfd, createMemfd, listenUnix, mapFile, pollEventfd, pollSocket,
  raiseOpenFileLimit, readEventfd, receiveMessage, sendMessage, signalEventfd, socketPair, unmapFile,
} from '../../src/native/index.ts';
import { within } from '../../src/wait.ts';
import { openDescriptors } from './open-descriptors.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (from: Uint8Array, length: number): string => new TextDecoder().decode(from.subarray(0, length));

/** The first count that arrives on an eventfd. */
async function nextCount(fd: number): Promise<number> {
  let stop = (): void => undefined;
  const count = new Promise<number>((resolve) => {
    const poll = pollEventfd(fd, resolve);
    stop = poll.stop;
  });
  try {
    return await within(count, { timeoutMs: 2000, what: `a signal on eventfd ${fd}` });
  } finally {
    stop();
  }
}

let before: string[] = [];
beforeEach(() => {
  before = openDescriptors();
});
afterEach(() => {
  expect(openDescriptors()).toEqual(before);
});

describe('descriptors over Unix sockets', () => {
  test('a descriptor sent through a named socket arrives as another one of the same file', () => {
    const directory = mkdtempSync(join(tmpdir(), 'native-'));
    const listener = listenUnix(join(directory, 's'));
    expect(acceptUnix(listener)).toBeUndefined();
    const client = connectUnix(join(directory, 's'));
    const server = acceptUnix(listener) as number;
    const event = createEventfd();

    expect(sendMessage(client, bytes('hello'), [event])).toBe(5);
    const into = new Uint8Array(64);
    const received = receiveMessage(server, into);
    expect(received).toMatchObject({ byteCount: 5, truncated: false });
    expect(text(into, 5)).toBe('hello');
    const [copy] = received?.fds as [number];
    expect(copy).not.toBe(event);
    signalEventfd(copy);
    signalEventfd(copy);
    expect(readEventfd(event)).toBe(2);
    expect(readEventfd(event)).toBe(0);

    for (const fd of [copy, event, server, client, listener]) closeFd(fd);
    rmSync(directory, { recursive: true });
  });

  test('a received descriptor is close-on-exec', () => {
    const [a, b] = socketPair();
    sendMessage(a, bytes('x'), [a]);
    const [copy] = (receiveMessage(b, new Uint8Array(1))?.fds ?? []) as [number];
    // O_CLOEXEC is 0o2000000 in the flags of proc(5)'s fdinfo
    const flags = /flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${copy}`, 'utf8'))?.[1] ?? '';
    expect(Number.parseInt(flags, 8) & 0o2000000).not.toBe(0);
    for (const fd of [a, b, copy]) closeFd(fd);
  });

  test('bytes of two messages with descriptors are not merged into one receive', () => {
    const [a, b] = socketPair();
    sendMessage(a, bytes('one'), [a]);
    sendMessage(a, bytes('two'), [a, b]);
    const into = new Uint8Array(64);
    const first = receiveMessage(b, into);
    expect(first).toMatchObject({ byteCount: 3 });
    const second = receiveMessage(b, into);
    expect(second).toMatchObject({ byteCount: 3 });
    expect(second?.fds).toHaveLength(2);
    for (const fd of [a, b, ...(first?.fds ?? []), ...(second?.fds ?? [])]) closeFd(fd);
  });

  test.each([0, 1, 2])('three descriptors with room for %i say truncated and leak none', (room) => {
    const [a, b] = socketPair();
    sendMessage(a, bytes('x'), [a, a, b]);
    const received = receiveMessage(b, new Uint8Array(1), room);
    expect(received).toMatchObject({ byteCount: 1, truncated: true });
    expect(received?.fds).toHaveLength(room);
    for (const fd of [a, b, ...(received?.fds ?? [])]) closeFd(fd);
  });

  test('253 descriptors in one message all arrive', () => {
    const [a, b] = socketPair();
    sendMessage(a, bytes('x'), Array.from({ length: 253 }, () => a));
    const received = receiveMessage(b, new Uint8Array(1));
    expect(received?.truncated).toBe(false);
    expect(new Set(received?.fds).size).toBe(253);
    for (const fd of [a, b, ...(received?.fds ?? [])]) closeFd(fd);
  });

  test('a socket without data gives undefined, a closed one 0 bytes, and sending to it EPIPE', () => {
    const [a, b] = socketPair();
    expect(receiveMessage(a, new Uint8Array(1))).toBeUndefined();
    closeFd(b);
    expect(receiveMessage(a, new Uint8Array(1))).toMatchObject({ byteCount: 0 });
    expect(() => sendMessage(a, bytes('x'))).toThrow(expect.objectContaining({ code: 'EPIPE' }));
    closeFd(a);
  });

  test('a full socket gives undefined, and a poll says when there is room again', async () => {
    const [a, b] = socketPair();
    const block = new Uint8Array(65536);
    while (sendMessage(a, block) !== undefined);
    let poll: ReturnType<typeof pollSocket> | undefined;
    const room = new Promise<void>((resolve) => {
      poll = pollSocket(a, ({ writable }) => {
        if (writable) resolve();
      });
    });
    poll?.wantWritable(true);
    while (receiveMessage(b, block) !== undefined);
    await within(room, { timeoutMs: 2000, what: 'room in the socket' });
    poll?.stop();
    for (const fd of [a, b]) closeFd(fd);
  });
});

describe('failures', () => {
  test('a path of over 107 bytes is refused by name', () => {
    expect(() => listenUnix(`/tmp/${'x'.repeat(104)}`)).toThrow(expect.objectContaining({ code: 'ENAMETOOLONG' }));
  });

  test('a system call that fails throws an Error of this realm, with the call and the code', () => {
    let thrown: unknown;
    try {
      connectUnix('/nonexistent/socket');
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(SystemCallError);
    expect(thrown).toBeInstanceOf(EnvironmentError);
    expect(String(thrown)).toContain('connect to /nonexistent/socket: ENOENT (no such file or directory)');
  });

  test('closing a descriptor twice is EBADF', () => {
    const fd = createEventfd();
    closeFd(fd);
    expect(() => closeFd(fd)).toThrow('EBADF');
  });

  test('the open file limit never goes down', () => {
    const now = raiseOpenFileLimit(0);
    expect(raiseOpenFileLimit(now - 1)).toBe(now);
  });
});

describe('mappings', () => {
  test('two mappings of one file show each other what is written', () => {
    const fd = createMemfd('shared', 8192);
    const one = mapFile(fd, 0, 8192);
    const two = mapFile(fd, 4096, 4096);
    closeFd(fd);
    new Uint32Array(one)[1024] = 0x12345678;
    expect(new Uint32Array(two)[0]).toBe(0x12345678);
    unmapFile(one);
    unmapFile(two);
  });

  test('unmapping empties every view, and a read through one is undefined, not a crash', () => {
    const fd = createMemfd('gone', 4096);
    const buffer = mapFile(fd, 0, 4096);
    closeFd(fd);
    const u8 = new Uint8Array(buffer, 16, 16);
    const u32 = new Uint32Array(buffer);
    u8[0] = 7;
    unmapFile(buffer);
    expect([buffer.byteLength, u8.length, u32.length]).toEqual([0, 0, 0]);
    expect(u8[0]).toBeUndefined();
    u8[0] = 9;
    expect(() => Atomics.load(u32, 0)).toThrow();
    expect(readFileSync('/proc/self/maps', 'utf8')).not.toContain('memfd:gone');
  });

  test('unmapping twice, or what was never mapped, is EINVAL', () => {
    const fd = createMemfd('twice', 4096);
    const buffer = mapFile(fd, 0, 4096);
    closeFd(fd);
    unmapFile(buffer);
    expect(() => unmapFile(buffer)).toThrow('EINVAL');
    expect(() => unmapFile(new ArrayBuffer(4096))).toThrow('EINVAL');
  });

  test('a range beyond the end of the file is ENXIO before it can be touched', () => {
    const fd = createMemfd('short', 4096);
    expect(() => mapFile(fd, 0, 4097)).toThrow('ENXIO');
    expect(() => mapFile(fd, 4096, 1)).toThrow('ENXIO');
    expect(() => mapFile(fd, 1, 4095)).toThrow('EINVAL');
    expect(() => mapFile(fd, 0, 0)).toThrow('EINVAL');
    expect(() => mapFile(fd, -4096, 4096)).toThrow('EINVAL');
    expect(() => mapFile(fd, 4096, Number.MAX_SAFE_INTEGER)).toThrow('ENXIO');
    closeFd(fd);
  });

  test('what is no regular file cannot be mapped', () => {
    const fd = createEventfd();
    expect(() => mapFile(fd, 0, 4096)).toThrow('ENODEV');
    closeFd(fd);
  });

  test('4 GiB is one mapping, reachable to its last byte', () => {
    const fd = createMemfd('large', 2 ** 32);
    const buffer = mapFile(fd, 0, 2 ** 32);
    closeFd(fd);
    const u8 = new Uint8Array(buffer);
    expect(u8.length).toBe(2 ** 32);
    u8[2 ** 32 - 1] = 1;
    expect(u8[2 ** 32 - 1]).toBe(1);
    unmapFile(buffer);
  });
});

describe('eventfds', () => {
  test('a poll calls back with the count, merging signals that came before it looked', async () => {
    const fd = createEventfd();
    signalEventfd(fd);
    signalEventfd(fd);
    signalEventfd(fd);
    expect(await nextCount(fd)).toBe(3);
    expect(readEventfd(fd)).toBe(0);
    closeFd(fd);
  });

  test('no callback comes after stop, even of a signal already there', async () => {
    const fd = createEventfd();
    const counts: number[] = [];
    const poll = pollEventfd(fd, (count) => counts.push(count));
    signalEventfd(fd);
    poll.stop();
    poll.stop();
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    expect(counts).toEqual([]);
    closeFd(fd);
  });

  test('a callback may stop its own poll and close its descriptor', async () => {
    const fd = createEventfd();
    const count = new Promise<number>((resolve) => {
      const poll = pollEventfd(fd, (value) => {
        poll.stop();
        closeFd(fd);
        resolve(value);
      });
    });
    signalEventfd(fd);
    expect(await within(count, { timeoutMs: 2000, what: 'the signal' })).toBe(1);
  });

  test('promises settled in a callback go on without another event', async () => {
    const fd = createEventfd();
    let poll: ReturnType<typeof pollEventfd> | undefined;
    const first = new Promise<void>((resolve) => {
      poll = pollEventfd(fd, () => resolve());
    });
    signalEventfd(fd);
    await first.then(() => Promise.resolve());
    poll?.stop();
    closeFd(fd);
  });

  test('one descriptor is polled once at a time', () => {
    const fd = createEventfd();
    const poll = pollEventfd(fd, () => undefined);
    expect(() => pollEventfd(fd, () => undefined)).toThrow('EEXIST');
    poll.stop();
    pollEventfd(fd, () => undefined).stop();
    closeFd(fd);
  });

  test('only an eventfd passes for one', () => {
    const [a, b] = socketPair();
    const event = createEventfd();
    const memory = createMemfd('m', 4096);
    expect([a, memory, event, 9999].map(adoptEventfd)).toEqual([false, false, true, false]);
    for (const fd of [a, b, event, memory]) closeFd(fd);
  });

  test('a polled descriptor that turns out to be no counter says so once and is left alone', async () => {
    const [a, b] = socketPair();
    closeFd(b); // readable for ever: end of file
    const counts: number[] = [];
    const poll = pollEventfd(a, (count) => counts.push(count));
    for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(counts).toEqual([-71]); // EPROTO
    poll.stop();
    closeFd(a);
  });
});
