import { describe, expect, test } from '@jest/globals';
import { DeadlineError, UsageError } from '../../src/errors.ts';
import type { VirtioDevice } from '../../src/virtio/device.ts';
import { steer } from '../../src/virtio/queue-gate.ts';
import type { SteeredTransport } from '../../src/virtio/queue-gate.ts';
import type { DescriptorChain, TransportVirtqueue, Virtqueue } from '../../src/virtio/virtqueue.ts';
import type { DriverSide } from './driver-side.ts';
import { fileLayout, mockDriver } from './layouts.ts';

/** Answers each request with its own bytes, in capitals; at once, or when told to. */
class EchoDevice implements VirtioDevice {
  readonly deviceId = 0;
  readonly features = 0n;
  readonly queueCount = 2;
  readonly queueSizeMax = 16;
  readonly seen: string[] = [];
  readonly open: (() => void)[] = [];
  #idle: (() => void)[] = [];

  constructor(readonly late = false) {}

  config(): Uint8Array {
    return Uint8Array.of(1, 2, 3, 4);
  }

  process(_index: number, queue: Virtqueue): void {
    for (let chain = queue.next(); chain !== undefined; chain = queue.next()) {
      const taken: DescriptorChain = chain;
      const bytes = new Uint8Array(taken.readableBytes);
      taken.copyOut(0, bytes);
      this.seen.push(Buffer.from(bytes).toString());
      const answer = (): void => {
        taken.copyIn(0, Buffer.from(Buffer.from(bytes).toString().toUpperCase()));
        queue.complete(taken, bytes.length);
        if (this.open.length === 0) for (const resolve of this.#idle.splice(0)) resolve();
      };
      if (this.late) this.open.push(answer);
      else answer();
    }
  }

  answerAll(): void {
    for (const answer of this.open.splice(0)) answer();
  }

  async drain(): Promise<void> {
    if (this.open.length > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }
}

/** A transport that carries nothing. */
const silent: SteeredTransport = {
  signal: () => undefined, configChanged: () => undefined, needsReset: () => undefined, crash: async () => undefined, restart: async () => undefined,
};

function setUp({ late = false, latencyMs = 0 } = {}) {
  const echo = new EchoDevice(late);
  const steered = steer(echo, { latencyMs });
  const driver = mockDriver(undefined, { size: 16 });
  let queue: TransportVirtqueue = driver.queue();
  driver.onKick = () => steered.device.process(0, queue);
  return {
    echo,
    steered,
    driver,
    gate: steered.queue(0),
    get queue() { return queue; },
    /** Stop the queue as a session does, and start another where it stopped. */
    async restart(): Promise<void> {
      await steered.device.drain?.(0);
      queue.stop();
      queue = driver.queue({ base: queue.base });
      steered.device.process(0, queue);
    },
    send: (name: string): number => driver.submitOne(name),
    answers: (): string[] => driver.collect().map(({ written, len }) => Buffer.from(written.subarray(0, len)).toString()),
  };
}

describe('an open gate', () => {
  test('lets requests through at once and counts them', () => {
    const { send, answers, gate } = setUp();
    send('a');
    send('b');
    expect(answers()).toEqual(['A', 'B']);
    expect(gate.counts).toEqual({ taken: 2, completed: 2, inFlight: 0, notified: 2, suppressed: 0 });
    expect(gate.waiting).toBe(0);
  });

  test('shows the next request to whoever waits for it, and lets it through', async () => {
    const { send, answers, gate } = setUp();
    send('before');
    const next = gate.nextRequest();
    send('shown');
    await expect(next).resolves.toMatchObject({ readableBytes: 5, writableBytes: 5 });
    expect(Buffer.from((await next).readable).toString()).toBe('shown');
    expect(answers()).toEqual(['BEFORE', 'SHOWN']);
    await expect(next.then((request) => request.release())).rejects.toThrow(UsageError);
  });
});

describe('a held gate', () => {
  test('keeps requests from the device until it is released, then they go on in order', async () => {
    const { send, answers, gate, echo } = setUp();
    gate.hold();
    send('a');
    send('b');
    expect({ answers: answers(), seen: echo.seen, waiting: gate.waiting }).toEqual({ answers: [], seen: [], waiting: 2 });
    expect(gate.counts).toMatchObject({ taken: 2, completed: 0, inFlight: 2 });
    await expect(gate.nextRequest()).resolves.toMatchObject({ readableBytes: 1 });
    gate.release();
    expect(answers()).toEqual(['A', 'B']);
    send('c');
    expect(answers()).toEqual(['C']);
  });

  test('gives each request to one nextRequest, those waiting first', async () => {
    const { send, gate } = setUp();
    gate.hold();
    send('a');
    const first = await gate.nextRequest();
    const later = gate.nextRequest();
    send('b');
    expect([first, await later].map(({ readable }) => Buffer.from(readable).toString())).toEqual(['a', 'b']);
  });

  test('with no request in time gives a DeadlineError that names the queue', async () => {
    const { gate, send } = setUp();
    gate.hold();
    const failed = await gate.nextRequest({ timeoutMs: 5 }).catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(DeadlineError);
    expect((failed as Error).message).toContain('the next request on queue 0');
    send('a'); // and the one that comes too late is not lost on who gave up
    await expect(gate.nextRequest({ timeoutMs: 1000 })).resolves.toMatchObject({ readableBytes: 1 });
  });

  test('lets single requests go, in any order, and takes no request twice', async () => {
    const { send, answers, gate } = setUp();
    gate.hold();
    send('a');
    send('b');
    const [a, b] = [await gate.nextRequest(), await gate.nextRequest()];
    b.release();
    expect(answers()).toEqual(['B']);
    expect(() => b.release()).toThrow(UsageError);
    a.release();
    expect(answers()).toEqual(['A']);
  });

  test('answers a request untruly when told so', async () => {
    const { send, driver, gate, echo } = setUp();
    gate.hold();
    const head = send('a');
    const request = await gate.nextRequest();
    expect(request.head).toBe(head);
    request.complete({ id: 13, writtenBytes: 99 });
    expect(driver.collect()).toMatchObject([{ id: 13, len: 99 }]);
    expect(echo.seen).toEqual([]);
    expect(() => request.complete({ writtenBytes: 0 })).toThrow(UsageError);
  });

  test('gives what it keeps back to the ring when the queue stops, and takes it again when it starts', async () => {
    const rig = setUp();
    rig.send('a');
    expect(rig.answers()).toEqual(['A']);
    rig.gate.hold();
    rig.send('b');
    rig.send('c');
    const stale = await rig.gate.nextRequest();
    await rig.restart();
    expect(rig.queue.counts).toMatchObject({ taken: 2, completed: 0 });
    expect(rig.gate.waiting).toBe(2);
    expect(() => stale.release()).toThrow(UsageError);
    rig.gate.release();
    expect(rig.answers()).toEqual(['B', 'C']);
    expect(rig.gate.counts).toMatchObject({ taken: 3, completed: 3, inFlight: 0 });
  });

  test('stops at the index of the first request kept', async () => {
    const { driver, gate, send, queue, steered } = setUp();
    gate.hold();
    send('a');
    send('b');
    await steered.device.drain?.(0);
    expect(queue.base).toBe(driver.baseAfter(0, 0));
    expect(queue.counts).toMatchObject({ taken: 0, inFlight: 0 });
    expect(driver.collect()).toEqual([]);
  });

  test('goes on being held over a pause of the same queue, and counts once', async () => {
    const { gate, send, queue, steered, answers } = setUp();
    send('a');
    gate.hold();
    send('b');
    await steered.device.drain?.(0); // as for a change of the memory table: the queue itself lives on
    expect(gate.counts).toMatchObject({ taken: 1, completed: 1 });
    steered.device.process(0, queue);
    expect(gate.waiting).toBe(1);
    expect(gate.counts).toMatchObject({ taken: 2, completed: 1, inFlight: 1 });
    gate.release();
    expect(answers()).toEqual(['A', 'B']);
  });

  test('forgets what it keeps when the device is reset', () => {
    const { gate, send, steered, answers } = setUp();
    gate.hold();
    send('a');
    steered.device.reset?.();
    gate.release();
    expect({ answers: answers(), waiting: gate.waiting, inFlight: gate.counts.inFlight }).toEqual({ answers: [], waiting: 0, inFlight: 0 });
  });
});

describe('a gate with latency', () => {
  test('answers late, and at once when the queue stops', async () => {
    const { send, answers, steered } = setUp({ latencyMs: 60_000 });
    send('a');
    expect(answers()).toEqual([]);
    await steered.device.drain?.(0);
    expect(answers()).toEqual(['A']);
  });

  test('answers after the time asked for', async () => {
    const { send, driver, gate } = setUp({ latencyMs: 20 });
    const before = performance.now();
    const answered = new Promise<void>((resolve) => {
      const poll = setInterval(() => {
        if (driver.interrupts === 0) return;
        clearInterval(poll);
        resolve();
      }, 1);
    });
    send('a');
    await answered;
    expect(performance.now() - before).toBeGreaterThanOrEqual(19);
    gate.latencyMs = 0;
    send('b');
    expect(driver.collect()).toHaveLength(2);
  });
});

describe('requests answered together', () => {
  /** Two requests taken behind the gate, answered together by the device. */
  function together({ latencyMs = 0 } = {}): { driver: DriverSide; steered: ReturnType<typeof steer>; answer: () => void; ids: () => number[] } {
    const taken: DescriptorChain[] = [];
    let queue: Virtqueue | undefined;
    const device: VirtioDevice = {
      deviceId: 0, features: 0n, queueCount: 1, queueSizeMax: 16, config: () => new Uint8Array(0),
      process(_index, given) {
        queue = given;
        for (let chain = given.next(); chain !== undefined; chain = given.next()) taken.push(chain);
      },
    };
    const steered = steer(device, { latencyMs });
    const driver = mockDriver(undefined, { size: 16 });
    const ring = driver.queue();
    driver.onKick = () => steered.device.process(0, ring);
    driver.submitOne('a');
    driver.submitOne('b');
    return { driver, steered, answer: () => queue?.completeTogether(taken, [1, 1]), ids: () => taken.map(({ head }) => head) };
  }

  test('pass the gate together', () => {
    const { driver, answer, ids } = together();
    answer();
    expect(driver.collect()).toMatchObject(ids().map((id) => ({ id, len: 1 })));
    expect(driver.interrupts).toBe(1);
  });

  test('are late together', async () => {
    const { driver, steered, answer } = together({ latencyMs: 60_000 });
    answer();
    expect(driver.collect()).toEqual([]);
    await steered.device.drain?.(0);
    expect(driver.collect()).toHaveLength(2);
    expect(driver.interrupts).toBe(1);
  });

  test('have a wrong id for the first of them when one is due', () => {
    const { driver, steered, answer, ids } = together();
    steered.queue(0).answerWrongId(9);
    answer();
    expect(driver.collect().map(({ id }) => id)).toEqual([9, ids()[1]]);
  });

  test('are reordered when that is due', () => {
    const { driver, steered, answer, ids } = together();
    steered.queue(0).reorderAnswers(2);
    answer();
    expect(driver.collect().map(({ id }) => id)).toEqual(ids().toReversed());
  });
});

describe('a request answered by the test', () => {
  async function held(name = 'abcd') {
    const rig = setUp();
    rig.gate.hold();
    const head = rig.send(name);
    return { ...rig, head, request: await rig.gate.nextRequest() };
  }

  test('with data and a status has both in its buffer, and the length that they make', async () => {
    const { driver, request, head } = await held();
    request.complete({ data: Buffer.from('xyz'), status: 2 });
    const [used] = driver.collect();
    expect(used).toMatchObject({ id: head, len: 4 });
    expect([...used.written]).toEqual([...Buffer.from('xyz'), 2]);
  });

  test('with a status alone says that no data was written, unless the status is all there is', async () => {
    const four = await held();
    four.request.complete({ status: 1 });
    expect(four.driver.collect()).toMatchObject([{ len: 0 }]);
    const one = await held('a');
    one.request.complete({ status: 1 });
    expect(one.driver.collect()).toMatchObject([{ len: 1 }]);
  });

  test('with nothing is given back as it is, with length 0', async () => {
    const { driver, request, head } = await held();
    request.complete();
    expect(driver.collect()).toMatchObject([{ id: head, len: 0 }]);
  });

  test('any number of times is in the used ring as often, and counted once', async () => {
    const { driver, request, head, gate } = await held();
    request.complete({ times: 3, writtenBytes: 7 });
    expect(driver.collect()).toMatchObject([{ id: head, len: 7 }, { id: head, len: 7 }, { id: head, len: 7 }]);
    expect(gate.counts).toMatchObject({ completed: 1, inFlight: 0, notified: 3 });
  });

  test('with more data than it has room for is a RangeError, and it is still held', async () => {
    const { driver, request } = await held();
    expect(() => request.complete({ data: Buffer.alloc(5) })).toThrow(RangeError);
    expect(driver.collect()).toEqual([]);
    request.complete();
    expect(driver.collect()).toHaveLength(1);
  });

  test('and answered again is a UsageError that leaves its buffer alone', async () => {
    const { request, memory, driver } = await held().then((rig) => ({ ...rig, memory: rig.driver.memory }));
    request.complete({ data: Buffer.from('once') });
    const before = memory.read(driver.arena, 64);
    expect(() => request.complete({ data: Buffer.from('more') })).toThrow(UsageError);
    expect(memory.read(driver.arena, 64)).toEqual(before);
  });

  test('when it is dropped is in flight for ever, and is not put back when the queue stops', async () => {
    const { request, gate, queue, steered, driver } = await held();
    const { base } = queue;
    request.drop();
    expect({ waiting: gate.waiting, counts: gate.counts }).toMatchObject({ waiting: 0, counts: { taken: 1, completed: 0, inFlight: 1 } });
    await steered.device.drain?.(0);
    expect(queue.base).toBe(base);
    expect(driver.collect()).toEqual([]);
    expect(() => request.complete()).toThrow(UsageError);
  });
});

describe('answers of the device', () => {
  test('with a wrong length have it in the ring as often as asked for', () => {
    const { send, driver, gate } = setUp();
    gate.answerWrongLength(4096, 2);
    expect(gate.pendingFaults).toBe(2);
    for (const name of ['a', 'b', 'c']) send(name);
    expect(driver.collect().map(({ len }) => len)).toEqual([4096, 4096, 1]);
    expect(gate.pendingFaults).toBe(0);
  });

  test('dropped are done and not completed', () => {
    const { send, driver, gate, echo } = setUp();
    gate.dropAnswers();
    send('lost');
    const head = send('kept');
    expect(echo.seen).toEqual(['lost', 'kept']);
    expect(driver.collect()).toMatchObject([{ id: head }]);
    expect(gate.counts).toMatchObject({ taken: 2, completed: 1, inFlight: 1 });
  });

  test('duplicated are in the ring twice', () => {
    const { send, driver, gate } = setUp();
    gate.duplicateAnswers();
    const head = send('a');
    expect(driver.collect().map(({ id }) => id)).toEqual([head, head]);
    // On a packed ring the second stands where the driver's next buffer goes: what follows is not defined.
    if (fileLayout.value === 'packed') return;
    const next = send('b');
    expect(driver.collect().map(({ id }) => id)).toEqual([next]);
  });

  test('reordered come last first, once all of them are there', () => {
    const { send, answers, gate } = setUp();
    gate.reorderAnswers(3);
    send('a');
    send('b');
    expect(answers()).toEqual([]);
    send('c');
    expect(answers()).toEqual(['C', 'B', 'A']);
    send('d');
    expect(answers()).toEqual(['D']);
    expect(() => gate.reorderAnswers(1)).toThrow(UsageError);
  });

  test('reordered and too few are given when the queue stops', async () => {
    const { send, answers, gate, steered } = setUp();
    gate.reorderAnswers(3);
    send('a');
    send('b');
    await steered.device.drain?.(0);
    expect(answers()).toEqual(['B', 'A']);
  });
});

describe('the gate before the device', () => {
  test('changes what is read of config space, now or after some reads, until it is restored', () => {
    const { steered } = setUp();
    const read = (): number[] => [...steered.device.config()];
    steered.gate.changeConfig(1, Uint8Array.of(9));
    expect(read()).toEqual([1, 9, 3, 4]);
    steered.gate.changeConfig(3, Uint8Array.of(8), { afterReads: 1 });
    expect([read(), read()]).toEqual([[1, 9, 3, 4], [1, 9, 3, 8]]);
    steered.gate.restoreConfig();
    expect(read()).toEqual([1, 2, 3, 4]);
    expect(steered.gate.configReads).toBe(4);
    expect(() => steered.gate.changeConfig(3, new Uint8Array(2))).toThrow('config space has 4 bytes: 2 at 3 are not in it');
  });

  test('tells of config changes and of a need of a reset while there is a transport', () => {
    const { steered } = setUp();
    const told: string[] = [];
    steered.connect({ ...silent, configChanged: () => void told.push('config'), needsReset: () => void told.push('reset') });
    steered.gate.interruptConfig();
    steered.gate.needsReset();
    expect(told).toEqual(['config', 'reset']);
    steered.connect(undefined);
    expect(() => steered.gate.interruptConfig()).toThrow(UsageError);
    expect(() => steered.gate.needsReset()).toThrow(UsageError);
  });

  test('of a device that needs a reset takes and completes nothing until the reset', () => {
    const { steered, send, echo, answers, driver } = setUp({ late: true });
    steered.connect(silent);
    send('begun');
    steered.gate.needsReset();
    expect(steered.gate.awaitsReset).toBe(true);
    send('after');
    echo.answerAll();
    expect({ seen: echo.seen, answers: answers() }).toEqual({ seen: ['begun'], answers: [] });
    steered.device.reset?.();
    expect(steered.gate.awaitsReset).toBe(false);
    driver.onKick?.();
    expect(echo.seen).toEqual(['begun', 'after']);
  });

  test('lets a crash complete nothing, held, begun or late, and hangs up', async () => {
    const { steered, send, echo, answers, gate } = setUp({ late: true });
    let hungUp = 0;
    steered.connect({ ...silent, crash: async () => void (hungUp += 1) });
    send('begun');
    gate.hold();
    send('held');
    const request = await gate.nextRequest();
    await steered.gate.crash();
    echo.answerAll();
    expect({ hungUp, answers: answers(), waiting: gate.waiting }).toEqual({ hungUp: 1, answers: [], waiting: 0 });
    expect(() => request.complete()).toThrow(UsageError);
    await expect(setUp().steered.gate.crash()).rejects.toThrow(UsageError);
  });
});

describe('draining', () => {
  test('waits for what the device has begun, and takes nothing new meanwhile', async () => {
    const { send, echo, steered, driver, answers } = setUp({ late: true });
    send('a');
    const drained = steered.device.drain?.(0).then(() => 'drained');
    driver.submitOne('b');
    await expect(Promise.race([drained, Promise.resolve('open')])).resolves.toBe('open');
    echo.answerAll();
    await expect(drained).resolves.toBe('drained');
    expect(answers()).toEqual(['A']);
  });
});

describe('faults', () => {
  test('a wrong id goes into the ring as often as asked for', () => {
    const { send, driver, gate } = setUp();
    gate.answerWrongId(9, 2);
    const heads = [send('a'), send('b'), send('c')];
    expect(driver.collect().map(({ id }) => id)).toEqual([9, 9, heads[2]]);
  });

  test('interrupts are dropped as often as asked for, or sent to another queue until mended', () => {
    const { steered, gate } = setUp();
    expect(steered.beforeCall(0)).toBe('deliver');
    gate.dropInterrupts(2);
    expect([steered.beforeCall(0), steered.beforeCall(1), steered.beforeCall(0), steered.beforeCall(0)]).toEqual(['drop', 'deliver', 'drop', 'deliver']);
    gate.misdirectInterrupts(1);
    expect(steered.beforeCall(0)).toEqual({ queue: 1 });
    gate.misdirectInterrupts(undefined);
    expect(steered.beforeCall(0)).toBe('deliver');
  });

  test('an interrupt out of the blue is fired while a transport is there to fire it', () => {
    const { steered, gate } = setUp();
    const fired: number[] = [];
    steered.connect({ ...silent, signal: (index) => void fired.push(index) });
    gate.dropInterrupts();
    gate.interrupt();
    steered.queue(1).interrupt();
    expect(fired).toEqual([0, 1]);
    steered.connect(undefined);
    expect(() => gate.interrupt()).toThrow(UsageError);
  });

  test('a queue that is not there is a UsageError that says which are', () => {
    expect(() => setUp().steered.queue(2)).toThrow('The device has 2: 0 to 1.');
  });
});
