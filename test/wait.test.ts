import { expect, test } from '@jest/globals';
import { DeadlineError } from '../src/errors.ts';
import { within } from '../src/wait.ts';

const never = new Promise<never>(() => {});
const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;

async function failure(work: Promise<unknown>): Promise<unknown> {
  return work.then(() => { throw new Error('it did not fail'); }, (error: unknown) => error);
}

test('work that ends in time gives its value or its own error', async () => {
  await expect(within(Promise.resolve(7), { timeoutMs: 1000, what: 'a number' })).resolves.toBe(7);
  await expect(within(Promise.reject(new RangeError('own')), { timeoutMs: 1000, what: 'a number' })).rejects.toThrow(RangeError);
});

test('work that does not end in time is a DeadlineError that says what was waited for and how long', async () => {
  const error = await failure(within(never, { timeoutMs: 20, what: 'the link to come up' })) as DeadlineError;
  expect(error).toBeInstanceOf(DeadlineError);
  expect(error.message).toBe('waited 20 ms for the link to come up, and it did not happen');
  expect([error.waitedFor, error.timeoutMs]).toEqual(['the link to come up', 20]);
});

test('a deadline\'s stack leads to the wait, not to a timer', async () => {
  async function waitForTheLink(): Promise<void> { await within(never, { timeoutMs: 5, what: 'the link' }); }
  expect((await failure(waitForTheLink()) as Error).stack).toMatch(/waitForTheLink/);
});

test('an abort during the wait rejects at once with the signal\'s own reason', async () => {
  const controller = new AbortController();
  const reason = new Error('QEMU exited');
  const began = Date.now();
  const waiting = failure(within(never, { timeoutMs: 60_000, what: 'anything', signal: controller.signal }));
  controller.abort(reason);
  expect(await waiting).toBe(reason);
  expect(Date.now() - began).toBeLessThan(1000);
});

test('a signal that was aborted before wins over work that is already done', async () => {
  const reason = new Error('QEMU exited');
  expect(await failure(within(Promise.resolve(1), { timeoutMs: 1000, what: 'a number', signal: AbortSignal.abort(reason) }))).toBe(reason);
});

test('work that fails after an aborted wait is nobody\'s unhandled rejection', async () => {
  const unhandled: unknown[] = [];
  const listen = (error: unknown): void => { unhandled.push(error); };
  process.on('unhandledRejection', listen);
  let fail = (_: Error): void => {};
  const work = new Promise((_, reject) => { fail = reject; });
  const given = AbortSignal.abort(new Error('lost'));
  await failure(within(work, { timeoutMs: 1000, what: 'x', signal: given }));
  await failure(within(work, { timeoutMs: 1, what: 'x' }));
  fail(new Error('late'));
  await new Promise((resolve) => setImmediate(resolve));
  process.off('unhandledRejection', listen);
  expect(unhandled).toEqual([]);
});

test.each(['value', 'error', 'abort', 'aborted before'] as const)('no timer and no listener is left after the %s', async (how) => {
  const controller = new AbortController();
  const listeners = { added: 0, removed: 0 };
  const { signal } = controller;
  const add = signal.addEventListener.bind(signal), remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...args: Parameters<typeof add>) => { listeners.added += 1; add(...args); };
  signal.removeEventListener = (...args: Parameters<typeof remove>) => { listeners.removed += 1; remove(...args); };
  const before = timers();
  if (how === 'aborted before') controller.abort(new Error('lost'));
  const work = how === 'value' ? Promise.resolve() : how === 'error' ? Promise.reject(new Error('own')) : never;
  const waiting = within(work, { timeoutMs: 60_000, what: 'x', signal }).catch(() => undefined);
  if (how === 'abort') controller.abort(new Error('lost'));
  await waiting;
  expect(timers()).toBe(before);
  expect(listeners.removed).toBeGreaterThanOrEqual(listeners.added);
});
