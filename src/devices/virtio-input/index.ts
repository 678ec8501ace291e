// A virtio input device to plug: QEMU's vhost-user-input-pci with this process as its back end. The test presses its
// keys and moves its axes; what the guest's kernel tells it (LEDs, sounds) comes back to the test.
import { UsageError } from '../../errors.ts';
import { within } from '../../wait.ts';
import { Arrivals } from '../arrivals.ts';
import type { WaitOptions } from '../arrivals.ts';
import { vhostUserDevice } from '../vhost-user-device.ts';
import type { BackEndFaults, VhostUserDevice } from '../vhost-user-device.ts';
import { axesOf, codeOf, codesByType, KEYBOARD } from './capabilities.ts';
import type { InputCapabilities } from './capabilities.ts';
import { ABS, codeName, EV, INPUT_PROP, KEY, REL, SW, typeName } from './codes.ts';
import type { AbsName, KeyName, RelName, SwitchName } from './codes.ts';
import { VirtioInputDevice } from './device.ts';
import type { InputEvent, InputIds } from './device.ts';
import { INPUT_DATA_BYTES } from './layout.ts';

export { KEYBOARD, MOUSE, TABLET } from './capabilities.ts';
export type { InputCapabilities } from './capabilities.ts';
export type { AbsInfo, InputEvent, InputIds } from './device.ts';

export interface VirtioInputOptions extends BackEndFaults {
  /** KEYBOARD (the default), MOUSE, TABLET, or your own. */
  readonly capabilities?: InputCapabilities;
  /** What /sys/class/input/inputN/name says; at most 128 bytes, of which Linux keeps 63. */
  readonly name?: string;
  /** What /sys/class/input/inputN/uniq says. */
  readonly serial?: string;
  readonly ids?: Partial<InputIds>;
}

/** What the guest's kernel told the device: `{ type: 'EV_LED', code: 'LED_CAPSL', value: 1 }`. */
export interface InputStatus {
  readonly type: string;
  readonly code: string;
  readonly value: number;
}

/** Each call is one report: its events and a SYN_REPORT. UsageError for what the device did not announce. */
export interface VirtioInput extends VhostUserDevice {
  /** Press the key and release it: two reports. */
  key(code: KeyName | number): void;
  press(code: KeyName | number): void;
  release(code: KeyName | number): void;
  /** Move relative axes together: `move({ REL_X: 5, REL_Y: -2 })`. */
  move(by: Readonly<Partial<Record<RelName, number>>>): void;
  /** Set absolute axes together: `point({ ABS_X: 100, ABS_Y: 200 })`. */
  point(to: Readonly<Partial<Record<AbsName, number>>>): void;
  /** Set a switch: `toggle('SW_LID', true)`. */
  toggle(code: SwitchName | number, on: boolean): void;
  /** Send these events as they are: announced or not, with no SYN_REPORT but those among them. */
  emit(events: readonly InputEvent[]): void;
  /** Events that wait for a buffer of the driver. A reset (and with it an unplug) drops them. */
  readonly pending: number;
  /** All events are in buffers of the driver. DeadlineError when it gives none, UsageError when a reset dropped some. */
  delivered(options?: WaitOptions): Promise<void>;
  /** The next status that the guest's kernel sent and this method has not given yet. */
  nextStatus(options?: WaitOptions): Promise<InputStatus>;
}

const SYN_REPORT: InputEvent = { type: EV.EV_SYN, code: 0, value: 0 };
/** A test that emits and emits to a driver that takes nothing is told so. */
const PENDING_MAX = 65_536;
/** BUS_VIRTUAL of linux/input.h; vendor and product are the kernel's own for what has none. */
const IDS: InputIds = { bustype: 0x06, vendor: 0x1af4, product: 0x0001, version: 1 };

/** Throws UsageError for capabilities, names or faults that there are not. */
export function virtioInput(options: VirtioInputOptions = {}): VirtioInput {
  const { capabilities = KEYBOARD, name = 'rootport virtio input', serial = 'rootport', ids = {}, ...faults } = options;
  for (const [what, value] of [['name', name], ['serial', serial]] as const) {
    if (Buffer.byteLength(value) > INPUT_DATA_BYTES) throw new UsageError(`virtioInput: the ${what} has ${Buffer.byteLength(value)} bytes`, { hint: 'at most 128' });
  }
  const allIds = { ...IDS, ...ids };
  for (const [what, value] of Object.entries(allIds)) {
    if (!Number.isInteger(value) || value < 0 || value > 0xffff) throw new UsageError(`virtioInput: ${what} ${value} has more than 16 bits`);
  }
  const codes = codesByType(capabilities);
  const statuses = new Arrivals<InputStatus>();
  let idle: ((dropped: number) => void)[] = [];
  const { core, device } = vhostUserDevice({
    kind: 'virtio-input',
    driver: 'vhost-user-input-pci',
    // One for each queue, and one for config changes: with QEMU's own 2 the queues share one.
    properties: { vectors: 3 },
    // evdev before the driver: then the event node is there as soon as the device is.
    guest: { modules: ['virtio_pci', 'evdev', 'virtio_input'], ready: 'virtio*/input/input*/event*' },
    faults,
    make: (log) => new VirtioInputDevice({
      name, serial, ids: allIds, codes, axes: axesOf(capabilities.absolute ?? {}), log,
      properties: (capabilities.properties ?? []).map((one) => codeOf(INPUT_PROP, one)),
      onStatus: ({ type, code, value }) => statuses.push({ type: typeName(type), code: codeName(type, code), value }),
      onIdle: (dropped) => {
        for (const tell of idle.splice(0)) tell(dropped);
      },
    }),
  });

  const emit = (events: readonly InputEvent[]): void => {
    for (const { type, code, value } of events) {
      if (!(isWord(type) && isWord(code) && Number.isInteger(value) && value >= -(2 ** 31) && value < 2 ** 32)) {
        throw new UsageError(`virtioInput: no event has type ${type}, code ${code} and value ${value}`, { hint: '16, 16 and 32 bits' });
      }
    }
    if (core.pending + events.length > PENDING_MAX) {
      throw new UsageError(`virtioInput: ${core.pending} events wait already`, { hint: 'The guest takes none: is the driver bound? await delivered() between.' });
    }
    core.emit(events);
  };
  const report = (type: number, table: Readonly<Record<string, number>>, changes: readonly (readonly [string | number, number])[]): void => {
    const events = changes.map(([given, value]): InputEvent => {
      const code = codeOf(table, given);
      if (codes.get(type)?.includes(code) !== true) {
        throw new UsageError(`virtioInput: this device has no ${codeName(type, code)}`, { hint: 'Give it in the capabilities, or send it all the same with emit().' });
      }
      return { type, code, value };
    });
    emit([...events, SYN_REPORT]);
  };
  const press = (code: KeyName | number): void => report(EV.EV_KEY, KEY, [[code, 1]]);
  const release = (code: KeyName | number): void => report(EV.EV_KEY, KEY, [[code, 0]]);

  return {
    ...device,
    key(code) {
      press(code);
      release(code);
    },
    press,
    release,
    move: (by) => report(EV.EV_REL, REL, Object.entries(by)),
    point: (to) => report(EV.EV_ABS, ABS, Object.entries(to)),
    toggle: (code, on) => report(EV.EV_SW, SW, [[code, on ? 1 : 0]]),
    emit,
    get pending() {
      return core.pending;
    },
    async delivered({ timeoutMs = 10_000, signal } = {}) {
      if (core.pending === 0) return;
      let done: (dropped: number) => void = () => undefined;
      const all = new Promise<number>((resolve) => { done = resolve; });
      idle.push(done);
      try {
        const dropped = await within(all, { timeoutMs, signal, what: `the driver to take ${core.pending} events` });
        if (dropped > 0) throw new UsageError(`virtioInput: the guest reset the device, and ${dropped} events were dropped`, { hint: 'Emit once the driver is up: after plug().' });
      } finally {
        idle = idle.filter((one) => one !== done);
      }
    },
    nextStatus: (options) => statuses.next('a status from the guest\'s input core', options),
  };
}

function isWord(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 0xffff;
}
