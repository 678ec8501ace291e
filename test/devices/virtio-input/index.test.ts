import { describe, expect, test } from '@jest/globals';
import { DeadlineError, UsageError } from '../../../src/errors.ts';
import { EV, KEY, LED, codeName, typeName } from '../../../src/devices/virtio-input/codes.ts';
import { codesByType, KEYBOARD } from '../../../src/devices/virtio-input/capabilities.ts';
import { MOUSE, virtioInput } from '../../../src/devices/virtio-input/index.ts';

describe('codes', () => {
  test('have the values of linux/input-event-codes.h', () => {
    expect([EV.EV_KEY, EV.EV_LED, KEY.KEY_A, KEY.KEY_F24, KEY.BTN_LEFT, KEY.BTN_TOUCH, LED.LED_CAPSL]).toEqual([1, 17, 30, 194, 0x110, 0x14a, 1]);
  });

  test('have names, and a number where they have none', () => {
    expect([typeName(17), codeName(17, 1), typeName(99), codeName(17, 99), codeName(99, 1)]).toEqual(['EV_LED', 'LED_CAPSL', '0x63', '0x63', '0x1']);
  });

  test('of a keyboard are its keys, a scan code and LEDs', () => {
    expect([...codesByType(KEYBOARD).keys()]).toEqual([EV.EV_KEY, EV.EV_MSC, EV.EV_LED]);
  });
});

describe('virtioInput', () => {
  test.each([
    ['a key that there is not', () => virtioInput({ capabilities: { keys: ['KEY_NONE' as 'KEY_A'] } })],
    ['a name of Object.prototype', () => virtioInput({ capabilities: { keys: ['constructor' as 'KEY_A'] } })],
    ['a code of more than a bitmap has', () => virtioInput({ capabilities: { keys: [1024] } })],
    ['an axis that goes nowhere', () => virtioInput({ capabilities: { absolute: { ABS_X: { min: 1, max: 1 } } } })],
    ['a name of 129 bytes', () => virtioInput({ name: 'x'.repeat(129) })],
    ['an id of 17 bits', () => virtioInput({ ids: { vendor: 0x10000 } })],
    ['a latency of no time', () => virtioInput({ latencyMs: NaN })],
    ['a key that it did not announce', () => virtioInput({ capabilities: MOUSE }).key('KEY_A')],
    ['an axis that it did not announce', () => virtioInput().move({ REL_X: 1 })],
    ['an event of 33 bits', () => virtioInput().emit([{ type: 1, code: 1, value: 2 ** 32 }])],
  ])('throws a UsageError for %s', (_, act) => {
    expect(act).toThrow(UsageError);
  });

  test('sends what it did not announce when it is told to', () => {
    const input = virtioInput({ capabilities: MOUSE });
    input.emit([{ type: EV.EV_KEY, code: KEY.KEY_A, value: 1 }]);
    expect(input.pending).toBe(1);
  });

  test('says that the driver takes no events, and stops a test that fills it', async () => {
    const input = virtioInput();
    await expect(input.delivered()).resolves.toBeUndefined();
    input.key('KEY_A');
    await expect(input.delivered({ timeoutMs: 5 })).rejects.toThrow(DeadlineError);
    await expect(input.nextStatus({ timeoutMs: 5 })).rejects.toThrow('a status from the guest');
    expect(() => { for (;;) input.key('KEY_A'); }).toThrow('events wait already');
  });
});
