// The typed face of the native addon (addon.c, the only C): descriptors over Unix sockets, shared
// mappings, eventfds, and polling on Node's own loop. Loads the addon at first use.
//
// Descriptors are plain numbers: who receives or creates one closes it. Nothing here is freed by the
// garbage collector. A worker thread that ends closes its polls and mappings, not its descriptors.
import { createRequire } from 'node:module';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { getSystemErrorMap } from 'node:util';
import { EnvironmentError, SystemCallError } from '../errors.ts';

/** The addon's exports. Each returns a result >= 0, or -errno. */
interface Addon {
  readonly version: number;
  unixSocket(path: string, listening: boolean): number;
  accept(fd: number): number;
  socketPair(out: Int32Array): number;
  send(fd: number, bytes: Uint8Array, fds: Int32Array): number;
  receive(fd: number, into: Uint8Array, out: Int32Array): number;
  unreadBytes(fd: number): number;
  close(fd: number): number;
  memfd(name: string, sizeBytes: number): number;
  raiseFileLimit(wanted: number): number;
  createEventfd(): number;
  adoptEventfd(fd: number): number;
  signalEventfd(fd: number): number;
  readEventfd(fd: number): number;
  map(fd: number, offsetBytes: number, sizeBytes: number): ArrayBuffer | number;
  unmap(buffer: ArrayBuffer): number;
  poll(fd: number, events: number, isCounter: boolean, callback: (value: number) => void): number;
  repoll(id: number, events: number): number;
  unpoll(id: number): number;
}

/** The addon's version that this file was written for: addon.c has the same. */
const VERSION = 1;

// src/native/index.ts and dist/native/index.js lie equally deep in the package.
const ADDON = fileURLToPath(new URL('../../src/native/build/Release/rootport.node', import.meta.url));

function load(): Addon {
  const hint = 'build it with `node src/native/install.mjs` in the rootport package (npm rebuild rootport); needs gcc, make and python3';
  if (!existsSync(ADDON)) throw new EnvironmentError(`the native addon is not built: no ${ADDON}`, { hint });
  let loaded: Addon;
  try {
    loaded = createRequire(import.meta.url)(ADDON) as Addon;
  } catch (error) {
    throw new EnvironmentError(`the native addon does not load: ${String(error)}`, { hint, cause: error });
  }
  if (loaded.version !== VERSION) throw new EnvironmentError(`the native addon was built from version ${loaded.version} of its source, not ${VERSION}`, { hint });
  return loaded;
}

let loaded: Addon | undefined;
function addon(): Addon {
  return (loaded ??= load());
}

// uv.h's enum uv_poll_event
const UV_READABLE = 1;
const UV_WRITABLE = 2;

const HINTS: Readonly<Record<string, string>> = {
  EMFILE: 'too many open files: raise the hard limit (ulimit -Hn) of the process that starts this one',
  ETOOMANYREFS: 'too many descriptors in flight: raise the hard limit (ulimit -Hn)',
  ENAMETOOLONG: 'a Unix socket path has at most 107 bytes: use a shorter directory (TMPDIR)',
  EADDRINUSE: 'another process listens there, or a stale socket file was left: remove it',
};

/** The error of a negative result of the addon. */
function systemCallError(call: string, result: number): SystemCallError {
  const [code, description] = getSystemErrorMap().get(result) ?? [`errno ${-result}`, 'unknown error'];
  const hint = HINTS[code];
  return new SystemCallError(call, code, description, hint === undefined ? {} : { hint });
}

function checked(call: string, result: number): number {
  if (result < 0) throw systemCallError(call, result);
  return result;
}

const EAGAIN = -11;
const NO_FDS = new Int32Array(0);

/** A listening, non-blocking stream socket. Throws SystemCallError: EADDRINUSE, ENAMETOOLONG, EACCES. */
export function listenUnix(path: string): number {
  return checked(`listen on ${path}`, addon().unixSocket(path, true));
}

/** A connected, non-blocking stream socket. Throws SystemCallError: ENOENT, ECONNREFUSED. */
export function connectUnix(path: string): number {
  return checked(`connect to ${path}`, addon().unixSocket(path, false));
}

/** The next waiting connection (non-blocking), or undefined when none waits. */
export function acceptUnix(listener: number): number | undefined {
  const result = addon().accept(listener);
  return result === EAGAIN ? undefined : checked('accept', result);
}

/** Two connected, non-blocking stream sockets. */
export function socketPair(): [number, number] {
  const out = new Int32Array(2);
  checked('socketpair', addon().socketPair(out));
  return [out[0] as number, out[1] as number];
}

/**
 * Send bytes, with descriptors (at most 253) attached to the first of them: how many bytes went out, or
 * undefined when the socket is full. A peer that is gone is a SystemCallError: EPIPE, ECONNRESET.
 */
export function sendMessage(fd: number, bytes: Uint8Array, fds: readonly number[] = []): number | undefined {
  const result = addon().send(fd, bytes, fds.length === 0 ? NO_FDS : Int32Array.from(fds));
  return result === EAGAIN ? undefined : checked('sendmsg', result);
}

export interface Received {
  /** 0 when the peer closed its end. */
  readonly byteCount: number;
  /** Descriptors that came with these bytes, close-on-exec; the caller's to close. */
  readonly fds: readonly number[];
  /** More descriptors came than there was room for, or than this process may open: they are lost. */
  readonly truncated: boolean;
}

/**
 * Receive bytes and up to `fdCountMax` (at most 253) descriptors; undefined when nothing waits. Bytes after
 * the first ones that carried descriptors may be of a later message; those of two sends with
 * descriptors are never merged (unix(7)).
 */
export function receiveMessage(fd: number, into: Uint8Array, fdCountMax = 253): Received | undefined {
  const out = new Int32Array(2 + fdCountMax);
  const result = addon().receive(fd, into, out);
  if (result === EAGAIN) return undefined;
  const byteCount = checked('recvmsg', result);
  return { byteCount, fds: Array.from(out.subarray(2, 2 + (out[0] as number))), truncated: out[1] !== 0 };
}

/** 0 when the peer of this socket has read everything sent; else about what the kernel still holds for it. */
export function unreadBytes(fd: number): number {
  return checked('ioctl SIOCOUTQ', addon().unreadBytes(fd));
}

export function closeFd(fd: number): void {
  checked(`close of descriptor ${fd}`, addon().close(fd));
}

/** A memory file of this size, sealed against shrinking. */
export function createMemfd(name: string, sizeBytes: number): number {
  return checked(`memfd_create ${name}`, addon().memfd(name, sizeBytes));
}

/** Raise the soft limit of open descriptors to `wanted` if the hard limit lets; the soft limit now. */
export function raiseOpenFileLimit(wanted: number): number {
  return checked('setrlimit RLIMIT_NOFILE', addon().raiseFileLimit(wanted));
}

/** A non-blocking eventfd with count 0. */
export function createEventfd(): number {
  return checked('eventfd', addon().createEventfd());
}

/** Make a peer's eventfd non-blocking; false when the descriptor is not an eventfd at all. */
export function adoptEventfd(fd: number): boolean {
  return addon().adoptEventfd(fd) === 0;
}

/** Add one to an eventfd's count. Hot path: no allocation. */
export function signalEventfd(fd: number): void {
  const result = (loaded ?? addon()).signalEventfd(fd);
  if (result < 0) throw systemCallError(`write to eventfd ${fd}`, result);
}

/** Take an eventfd's count; 0 when it was not signalled since. */
export function readEventfd(fd: number): number {
  return checked(`read of eventfd ${fd}`, addon().readEventfd(fd));
}

/** Largest mapping that Node 20 can hold in one typed array, bytes. */
export const MAPPING_SIZE_MAX = 2 ** 32;

/**
 * Map part of a file, shared and writable; the offset is a multiple of the page size. The buffer
 * belongs to another realm under Jest: `instanceof ArrayBuffer` is false there, views over it work.
 * Throws SystemCallError: ENXIO when the file is shorter than the range.
 */
export function mapFile(fd: number, offsetBytes: number, sizeBytes: number): ArrayBuffer {
  const result = addon().map(fd, offsetBytes, sizeBytes);
  if (typeof result === 'number') throw systemCallError(`mmap of ${sizeBytes} bytes at ${offsetBytes} of descriptor ${fd}`, result);
  return result;
}

/**
 * Unmap a buffer of `mapFile`. It and every view over it have length 0 afterwards; reads give undefined.
 * Asynchronous I/O into it must have ended. Throws SystemCallError: EINVAL when it was not mapped.
 */
export function unmapFile(buffer: ArrayBuffer): void {
  checked('munmap', addon().unmap(buffer));
}

export interface Poll {
  /** Idempotent. No callback comes after it; the descriptor may be closed at once. */
  stop(): void;
}

export interface SocketPoll extends Poll {
  /** Call back too when there is room to send; level-triggered, so switch it off when nothing waits. */
  wantWritable(wanted: boolean): void;
}

function startPoll(fd: number, isCounter: boolean, callback: (value: number) => void): SocketPoll {
  let id: number | undefined = checked(`poll of descriptor ${fd}`, addon().poll(fd, UV_READABLE, isCounter, callback));
  return {
    stop: () => {
      if (id !== undefined) addon().unpoll(id);
      id = undefined;
    },
    wantWritable: (wanted) => {
      if (id !== undefined) checked('poll', addon().repoll(id, wanted ? UV_READABLE | UV_WRITABLE : UV_READABLE));
    },
  };
}

export interface SocketEvent {
  readonly readable: boolean;
  readonly writable: boolean;
  /** The socket has an error: receive once more to learn it; the poll says nothing further. */
  readonly failed: boolean;
}

/**
 * Call back whenever a socket is readable (or, if wanted, writable), until stopped. A peer that
 * closed counts as readable. Keeps the process alive. One poll per descriptor.
 */
export function pollSocket(fd: number, callback: (event: SocketEvent) => void): SocketPoll {
  return startPoll(fd, false, (events) => {
    const failed = events < 0;
    callback({ failed, readable: failed || (events & UV_READABLE) !== 0, writable: !failed && (events & UV_WRITABLE) !== 0 });
  });
}

/**
 * Take an eventfd's count whenever it is signalled and call back with it, until stopped. A negative
 * count is -errno, said once: the descriptor is broken and no longer polled. Hot path: no allocation.
 */
export function pollEventfd(fd: number, callback: (count: number) => void): Poll {
  return startPoll(fd, true, callback);
}
