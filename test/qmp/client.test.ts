import { afterEach, describe, expect, test } from '@jest/globals';
import { DeadlineError, MachineExitError, ProtocolError, QmpError, UsageError } from '../../src/errors.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import type { QmpConnectOptions } from '../../src/qmp/client.ts';
import { GREETING, ScriptedPeer, socketPair } from './scripted-peer.ts';
import type { Received } from './scripted-peer.ts';

const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

type Answer = (command: Received, peer: ScriptedPeer) => void;
const silent: Answer = () => undefined;

async function connected(answer: Answer, options: Partial<QmpConnectOptions> = {}): Promise<{ qmp: QmpClient; peer: ScriptedPeer }> {
  const { near, far, remove } = await socketPair();
  cleanups.push(remove);
  const peer = new ScriptedPeer(far, answer);
  peer.say(GREETING);
  return { qmp: await QmpClient.connect(near, { timeoutMs: 2000, ...options }), peer };
}

const deleted = (device: string): object => ({
  timestamp: { seconds: 1700000000, microseconds: 250000 },
  event: 'DEVICE_DELETED',
  data: { device, path: `/machine/peripheral/${device}` },
});

/** The rejection of a promise that must reject. */
const rejection = (work: Promise<unknown>): Promise<unknown> => work.then(() => expect(work).rejects.toThrow(), (error: unknown) => error);

describe('connect', () => {
  test('reads the greeting and negotiates capabilities before anything else', async () => {
    const { qmp, peer } = await connected(silent);
    expect(qmp.greeting.version).toEqual({ major: 7, minor: 2, micro: 22, package: 'Debian 1:7.2' });
    expect(peer.received.map(({ execute }) => execute)).toEqual(['qmp_capabilities']);
  });

  test('a peer that says nothing ends in a DeadlineError that names the greeting, and the stream is destroyed', async () => {
    const { near, remove } = await socketPair();
    cleanups.push(remove);
    const error = await rejection(QmpClient.connect(near, { timeoutMs: 30 }));
    expect(error).toBeInstanceOf(DeadlineError);
    expect((error as Error).message).toContain("QEMU's QMP greeting");
    expect(near.destroyed).toBe(true);
  });

  test.each([
    ['text', 'QEMU 7.2 monitor\n', 'text that is not JSON'],
    ['an array', '[1]\n', 'JSON that is not an object'],
    ['an unknown object', '{"hello":1}\n', 'neither greeting'],
    ['a greeting without version', '{"QMP":{}}\n', 'without a version'],
    ['an answer to nothing', '{"return":{},"id":7}\n', 'no command that is pending, id 7'],
  ])('a peer that greets with %s is a ProtocolError that quotes it', async (_name, text, says) => {
    const { near, far, remove } = await socketPair();
    cleanups.push(remove);
    far.write(text);
    const error = await rejection(QmpClient.connect(near, { timeoutMs: 2000 }));
    expect(error).toBeInstanceOf(ProtocolError);
    expect((error as Error).message).toContain(says);
    expect((error as ProtocolError).received).toBe(text.trim());
  });

  test('a signal aborted before the greeting rejects with its reason', async () => {
    const { near, remove } = await socketPair();
    cleanups.push(remove);
    const abort = new AbortController();
    const connecting = rejection(QmpClient.connect(near, { timeoutMs: 2000, signal: abort.signal }));
    const reason = new MachineExitError('QEMU exited', 1, undefined);
    abort.abort(reason);
    expect(await connecting).toBe(reason);
    expect(await rejection(QmpClient.connect(near, { timeoutMs: 2000, signal: abort.signal }))).toBe(reason);
  });
});

describe('execute', () => {
  test('answers that come out of order reach the commands that they name', async () => {
    const held: Received[] = [];
    const { qmp } = await connected((command, peer) => {
      held.push(command);
      if (held.length === 2) for (const { id, execute } of held.reverse()) peer.say({ return: execute, id });
    });
    expect(await Promise.all([qmp.execute('first'), qmp.execute('second')])).toEqual(['first', 'second']);
  });

  test('an answer cut inside a UTF-8 character and sent a byte at a time comes whole', async () => {
    const { qmp } = await connected((command, peer) => {
      for (const byte of Buffer.from(`{"return": "größer → 🐧", "id": ${command.id}}\r\n`)) peer.raw(Uint8Array.of(byte));
    });
    expect(await qmp.hmp('info name')).toBe('größer → 🐧');
  });

  test('an error answer is a QmpError with class, description, what was sent and what came', async () => {
    const { qmp } = await connected(({ id }, peer) => peer.say({ id, error: { class: 'DeviceNotFound', desc: "Device 'disk0' not found" } }));
    const error = (await rejection(qmp.execute('device_del', { id: 'disk0' }))) as QmpError;
    expect(error).toBeInstanceOf(QmpError);
    expect(error.errorClass).toBe('DeviceNotFound');
    expect(error.message).toBe("QMP device_del: Device 'disk0' not found (DeviceNotFound)");
    expect(error.sent).toEqual({ execute: 'device_del', arguments: { id: 'disk0' }, id: 2 });
    expect(qmp.failure).toBeUndefined();
  });

  test('a command with no answer is a DeadlineError naming it, and its late answer harms nothing', async () => {
    let late: Received | undefined;
    const { qmp } = await connected((command, peer) => {
      if (command.execute === 'stop') late = command;
      else peer.say({ return: 'late', id: late?.id }, { return: 'own', id: command.id });
    });
    const error = await rejection(qmp.execute('stop', undefined, { timeoutMs: 30 }));
    expect(error).toBeInstanceOf(DeadlineError);
    expect((error as Error).message).toContain('QMP stop');
    expect(await qmp.execute('cont')).toBe('own');
  });

  test('a deadline of an HMP line quotes the line', async () => {
    const { qmp } = await connected(silent);
    await expect(qmp.hmp('info mtree -f', { timeoutMs: 20 })).rejects.toThrow('human-monitor-command "info mtree -f"');
  });

  test('the same id answered twice fails the connection', async () => {
    const { qmp } = await connected(({ id }, peer) => peer.say({ return: {}, id }, { return: {}, id }));
    await qmp.execute('stop');
    const error = await rejection(qmp.execute('cont'));
    expect(error).toBeInstanceOf(ProtocolError);
    expect((error as Error).message).toContain('no command that is pending');
  });

  test('an error without id fails the connection with what QEMU said', async () => {
    const { qmp } = await connected((_command, peer) => peer.say({ error: { class: 'GenericError', desc: 'JSON parse error' } }));
    await expect(qmp.execute('stop')).rejects.toThrow('id none: JSON parse error (GenericError)');
  });

  test('garbage in the middle rejects every pending command at once', async () => {
    const { qmp } = await connected(({ execute }, peer) => execute === 'second' && peer.raw('\x00\x01 not QMP\n'));
    const errors = await Promise.all([rejection(qmp.execute('first')), rejection(qmp.execute('second')), rejection(qmp.expectEvent('STOP', () => true, { timeoutMs: 2000 }))]);
    expect(errors[0]).toBeInstanceOf(ProtocolError);
    expect(errors[1]).toBe(errors[0]);
    expect(errors[2]).toBe(errors[0]);
  });

  test('arguments that are not JSON are a UsageError and nothing is sent', async () => {
    const { qmp, peer } = await connected(({ id }, p) => p.say({ return: {}, id }));
    await expect(qmp.execute('device_add', { addr: 1n })).rejects.toBeInstanceOf(UsageError);
    await qmp.execute('stop');
    expect(peer.received.map(({ execute }) => execute)).toEqual(['qmp_capabilities', 'stop']);
  });
});

describe('the end of the stream', () => {
  test('without a reason: everything pending is a ProtocolError that says so', async () => {
    const { qmp } = await connected((_command, peer) => peer.end());
    const error = await rejection(qmp.execute('quit'));
    expect(error).toBeInstanceOf(ProtocolError);
    expect((error as Error).message).toContain('closed the QMP connection');
    expect(await rejection(qmp.execute('again'))).toBe(error);
  });

  test('with endReason: everything pending and later rejects with the reason it gives', async () => {
    const reason = new MachineExitError('QEMU was killed', undefined, 'SIGKILL');
    const { qmp } = await connected((_command, peer) => peer.end(), { endReason: () => Promise.resolve(reason) });
    const event = rejection(qmp.expectEvent('STOP', () => true, { timeoutMs: 2000 }));
    expect(await rejection(qmp.execute('stop'))).toBe(reason);
    expect(await event).toBe(reason);
    expect(await rejection(qmp.expectEvent('STOP', () => true, { timeoutMs: 2000 }))).toBe(reason);
  });

  test('fail() rejects everything pending with the error given, and the first error counts', async () => {
    const { qmp } = await connected(silent);
    const pending = rejection(qmp.execute('stop'));
    const reason = new MachineExitError('QEMU exited with 1', 1, undefined);
    qmp.fail(reason);
    qmp.fail(new Error('later'));
    qmp.close();
    expect(await pending).toBe(reason);
    expect(qmp.failure).toBe(reason);
  });

  test('a signal aborted later rejects everything pending with its reason', async () => {
    const abort = new AbortController();
    const { qmp } = await connected(silent, { signal: abort.signal });
    const pending = rejection(qmp.execute('stop'));
    const reason = new MachineExitError('QEMU exited', 0, undefined);
    abort.abort(reason);
    expect(await pending).toBe(reason);
  });

  test('with keepOpen a signal ends all waits, and commands that say afterAbort still have answers, their own', async () => {
    const abort = new AbortController();
    const held: Received[] = [];
    const { qmp, peer } = await connected((command, answering) => {
      if (command.execute === 'query-status') answering.say({ return: { status: 'running' }, id: command.id }, deleted('disk0'));
      else held.push(command);
    }, { signal: abort.signal, keepOpen: true });
    const [pending, event] = [rejection(qmp.execute('stop')), rejection(qmp.expectEvent('STOP', () => true, { timeoutMs: 2000 }))];
    const reason = new MachineExitError('the guest faulted', undefined, undefined);
    abort.abort(reason);
    expect([await pending, await event, await rejection(qmp.execute('cont')), qmp.failure]).toEqual([reason, reason, reason, reason]);
    const seen: string[] = [];
    qmp.on('DEVICE_DELETED', ({ event: name }) => { seen.push(name); });
    expect(await qmp.execute('query-status', undefined, { afterAbort: true })).toEqual({ status: 'running' });
    expect(held).toHaveLength(1);
    peer.say({ return: { late: true }, id: held[0]?.id });
    await qmp.execute('query-status', undefined, { afterAbort: true });
    expect(seen).toContain('DEVICE_DELETED');
    qmp.close();
    expect(await rejection(qmp.execute('query-status', undefined, { afterAbort: true }))).toBeInstanceOf(UsageError);
    expect(qmp.failure).toBe(reason);
  });
});

describe('events', () => {
  test('an event sent before the answer of its command reaches a wait armed before it', async () => {
    const { qmp } = await connected(({ id }, peer) => peer.say(deleted('other'), deleted('disk0'), { return: {}, id }));
    const gone = qmp.expectEvent('DEVICE_DELETED', ({ data }) => data.device === 'disk0', { timeoutMs: 2000 });
    await qmp.execute('device_del', { id: 'disk0' });
    const event = await gone;
    expect(event.data.path).toBe('/machine/peripheral/disk0');
    expect(event.timestampMs).toBe(1700000000250);
  });

  test('when the command fails the abandoned wait is no unhandled rejection', async () => {
    const unhandled: unknown[] = [];
    const note = (reason: unknown): void => void unhandled.push(reason);
    process.on('unhandledRejection', note);
    const { qmp } = await connected(({ id }, peer) => peer.say({ id, error: { class: 'GenericError', desc: 'no' } }));
    const gone = qmp.expectEvent('DEVICE_DELETED', () => true, { timeoutMs: 10 });
    await expect(qmp.execute('device_del', { id: 'x' })).rejects.toBeInstanceOf(QmpError);
    await new Promise((resolve) => setTimeout(resolve, 40));
    process.off('unhandledRejection', note);
    expect(unhandled).toEqual([]);
    await expect(gone).rejects.toThrow('waited 10 ms for the QMP event DEVICE_DELETED');
  });

  test('a predicate that throws rejects its own wait only', async () => {
    const { qmp } = await connected(({ id }, peer) => peer.say(deleted('a'), { return: {}, id }));
    const broken = qmp.expectEvent('DEVICE_DELETED', () => { throw new TypeError('predicate'); }, { timeoutMs: 2000 });
    const whole = qmp.expectEvent('DEVICE_DELETED', () => true, { timeoutMs: 2000 });
    await qmp.execute('stop');
    await expect(broken).rejects.toThrow('predicate');
    expect((await whole).data.device).toBe('a');
  });

  test('a listener hears every event of its name until it is taken off, and the record keeps all', async () => {
    const { qmp } = await connected(({ id }, peer) => peer.say({ event: 'STOP' }, deleted('a'), { return: {}, id }));
    const heard: unknown[] = [];
    const off = qmp.on('DEVICE_DELETED', ({ data }) => heard.push(data.device));
    await qmp.execute('one');
    off();
    await qmp.execute('two');
    expect(heard).toEqual(['a']);
    expect(qmp.events.map(({ event }) => event)).toEqual(['STOP', 'DEVICE_DELETED', 'STOP', 'DEVICE_DELETED']);
    expect(qmp.events[0]?.receivedAtMs).toBeLessThanOrEqual(performance.now());
    expect(qmp.events[0]?.timestampMs).toBeNaN();
  });

  test('the record of events is bounded and counts what it dropped', async () => {
    const { qmp } = await connected(({ id }, peer) => {
      peer.say(...Array.from({ length: 1200 }, (_, i) => ({ event: 'RTC_CHANGE', data: { offset: i } })), { return: {}, id });
    });
    await qmp.execute('stop');
    expect(qmp.events).toHaveLength(1000);
    expect(qmp.eventsDropped).toBe(200);
    expect(qmp.events[0]?.data.offset).toBe(200);
  });
});
