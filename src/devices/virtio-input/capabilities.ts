// What an input device can do, by names: the keys, axes, LEDs it announces, checked, and turned into the numbers that
// its config space shows. Presets for a keyboard, a mouse and a tablet.
import { UsageError } from '../../errors.ts';
import { ABS, EV, INPUT_PROP, KEY, LED, MSC, REL, SND, SW } from './codes.ts';
import type { AbsName, KeyName, LedName, RelName, SoundName, SwitchName } from './codes.ts';
import type { AbsInfo } from './device.ts';

export interface InputCapabilities {
  readonly keys?: readonly (KeyName | number)[];
  readonly relative?: readonly (RelName | number)[];
  /** Axes by name; a number is the code of an axis that has none here. */
  readonly absolute?: Readonly<Partial<Record<AbsName | number, AbsInfo>>>;
  readonly switches?: readonly (SwitchName | number)[];
  readonly leds?: readonly (LedName | number)[];
  readonly sounds?: readonly (SoundName | number)[];
  readonly properties?: readonly (keyof typeof INPUT_PROP)[];
  /** The guest's kernel repeats keys that are held (EV_REP). */
  readonly repeat?: boolean;
}

/** All keys of a keyboard, and its LEDs. */
export const KEYBOARD: InputCapabilities = {
  keys: (Object.keys(KEY) as KeyName[]).filter((name) => name.startsWith('KEY_')),
  leds: ['LED_NUML', 'LED_CAPSL', 'LED_SCROLLL'],
};
/** Three buttons, two axes and a wheel. */
export const MOUSE: InputCapabilities = { keys: ['BTN_LEFT', 'BTN_RIGHT', 'BTN_MIDDLE'], relative: ['REL_X', 'REL_Y', 'REL_WHEEL'] };
/** A pointer with absolute axes from 0 to 32767, as QEMU's tablet. */
export const TABLET: InputCapabilities = {
  keys: ['BTN_LEFT', 'BTN_RIGHT', 'BTN_MIDDLE'],
  relative: ['REL_WHEEL'],
  absolute: { ABS_X: { min: 0, max: 0x7fff }, ABS_Y: { min: 0, max: 0x7fff } },
};

/** 128 bytes of bitmap. */
const CODES_MAX = 1024;

/** The number of a code given by name or number. UsageError for a name that there is not. */
export function codeOf(table: Readonly<Record<string, number>>, given: string | number): number {
  const code = typeof given === 'number' ? given : Object.hasOwn(table, given) ? table[given] : undefined;
  if (code !== undefined && Number.isInteger(code) && code >= 0 && code < CODES_MAX) return code;
  throw new UsageError(`virtioInput: there is no code ${JSON.stringify(given)}`, {
    hint: `such as ${Object.keys(table).slice(0, 3).join(', ')}, or a number up to ${CODES_MAX - 1}`,
  });
}

/** Codes by event type; types without codes are left out. */
export function codesByType(capabilities: InputCapabilities): Map<number, readonly number[]> {
  const { keys = [], relative = [], absolute = {}, switches = [], leds = [], sounds = [], repeat = false } = capabilities;
  const all: [number, number[]][] = [
    [EV.EV_KEY, keys.map((code) => codeOf(KEY, code))],
    [EV.EV_REL, relative.map((code) => codeOf(REL, code))],
    [EV.EV_ABS, [...axesOf(absolute).keys()]],
    [EV.EV_MSC, keys.length > 0 ? [MSC.MSC_SCAN] : []],
    [EV.EV_SW, switches.map((code) => codeOf(SW, code))],
    [EV.EV_LED, leds.map((code) => codeOf(LED, code))],
    [EV.EV_SND, sounds.map((code) => codeOf(SND, code))],
    [EV.EV_REP, repeat ? [0, 1] : []],
  ];
  return new Map(all.filter(([, codes]) => codes.length > 0));
}

/** Axes by code. UsageError for a range that is none. */
export function axesOf(absolute: NonNullable<InputCapabilities['absolute']>): Map<number, AbsInfo> {
  const axes = new Map<number, AbsInfo>();
  for (const [name, info] of Object.entries(absolute)) {
    if (info === undefined) continue;
    if (!(info.min < info.max)) throw new UsageError(`virtioInput: ${name} goes from ${info.min} to ${info.max}`, { hint: 'min is less than max' });
    axes.set(codeOf(ABS, /^\d+$/.test(name) ? Number(name) : name), info);
  }
  return axes;
}
