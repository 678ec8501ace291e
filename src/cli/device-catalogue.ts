// Devices by name, as `rootport shell virtio-blk:queues=4,capacity=64M` takes them.
import { edu } from '../devices/edu/index.ts';
import { ivshmem } from '../devices/ivshmem/index.ts';
import { virtioBlk } from '../devices/virtio-blk/index.ts';
import { virtioConsole, type ConsolePortOptions } from '../devices/virtio-console/index.ts';
import { virtioGpio } from '../devices/virtio-gpio/index.ts';
import { i2cEeprom, virtioI2c } from '../devices/virtio-i2c/index.ts';
import { KEYBOARD, MOUSE, TABLET, virtioInput } from '../devices/virtio-input/index.ts';
import { virtioNet } from '../devices/virtio-net/index.ts';
import { scriptedPeer } from '../devices/virtio-net/scripted-peer.ts';
import { virtioRng } from '../devices/virtio-rng/index.ts';
import { virtioVsock } from '../devices/virtio-vsock/index.ts';
import { UsageError } from '../errors.ts';
import type { Device } from '../qemu/attachment.ts';

type Kind = 'number' | 'size' | 'text' | 'flag';
/** Values by name of the option that this catalogue's reader takes them from. */
type Values = Readonly<Record<string, string | undefined>>;

interface CatalogueEntry {
  readonly summary: string;
  readonly options: Readonly<Record<string, Kind>>;
  make(values: Values): Device;
}

export const DEVICES: Readonly<Record<string, CatalogueEntry>> = {
  'edu': {
    summary: 'QEMU\'s educational device: 1234:11e8, one BAR, INTx or one MSI vector, DMA',
    options: {},
    make: () => edu(),
  },
  'ivshmem': {
    summary: 'shared memory, doorbells and MSI-X vectors: 1af4:1110',
    options: { vectors: 'number', shared: 'size' },
    make: (values) => ivshmem({ ...set('vectors', number(values['vectors'])), ...set('sharedBytes', size(values['shared'])) }),
  },
  'virtio-blk': {
    summary: 'a disk over vhost-user, in memory unless it has a file; 64 MiB unless told',
    options: { 'queues': 'number', 'capacity': 'size', 'file': 'text', 'readonly': 'flag', 'serial': 'text', 'latency-ms': 'number', 'queue-size': 'number', 'packed': 'flag' },
    make: (values) => virtioBlk({
      ...set('queues', number(values['queues'])),
      ...set('capacityBytes', size(values['capacity']) ?? (values['file'] === undefined ? 64 * 2 ** 20 : undefined)),
      ...set('file', values['file']),
      ...set('readOnly', flag(values['readonly'])),
      ...set('serial', values['serial']),
      ...set('latencyMs', number(values['latency-ms'])),
      ...set('queueSize', number(values['queue-size'])),
      ...set('packed', flag(values['packed'])),
    }),
  },
  'virtio-net': {
    summary: 'a network card over vhost-user; with peer=ADDRESS somebody at 192.0.2.1, say, answers ARP and pings',
    options: { 'queue-pairs': 'number', 'mac': 'text', 'mtu': 'number', 'peer': 'text', 'latency-ms': 'number', 'queue-size': 'number' },
    make: (values) => virtioNet({
      ...set('queuePairs', number(values['queue-pairs'])),
      ...set('mac', values['mac']),
      ...set('mtu', number(values['mtu'])),
      ...(values['peer'] === undefined ? {} : { peer: scriptedPeer({ ipv4: values['peer'] }) }),
      ...set('latencyMs', number(values['latency-ms'])),
      ...set('queueSize', number(values['queue-size'])),
    }),
  },
  'virtio-rng': {
    summary: 'entropy over vhost-user, from the host',
    options: { 'latency-ms': 'number', 'packed': 'flag' },
    make: (values) => virtioRng({ ...set('latencyMs', number(values['latency-ms'])), ...set('packed', flag(values['packed'])) }),
  },
  'virtio-input': {
    summary: 'a keyboard over vhost-user, or a mouse or a tablet; nobody presses its keys',
    options: { kind: 'text', name: 'text' },
    make: (values) => virtioInput({ ...set('capabilities', inputKind(values['kind'])), ...set('name', values['name']) }),
  },
  'virtio-vsock': {
    summary: 'a socket device over vhost-user; nobody listens on the host\'s side',
    options: { cid: 'number', buffer: 'size' },
    make: (values) => virtioVsock({ ...set('guestCid', number(values['cid'])), ...set('bufferBytes', size(values['buffer'])) }),
  },
  'virtio-i2c': {
    summary: 'an I2C bus over vhost-user, with an EEPROM at 0x50; bring your own driver',
    options: { eeprom: 'size' },
    make: (values) => virtioI2c({ targets: { 0x50: i2cEeprom({ ...set('sizeBytes', size(values['eeprom'])) }) } }),
  },
  'virtio-gpio': {
    summary: 'GPIO lines over vhost-user, 8 unless told; bring your own driver',
    options: { lines: 'number' },
    make: (values) => virtioGpio({ ...set('lines', number(values['lines'])) }),
  },
  'virtio-console': {
    summary: 'a virtio console, with one console port unless told; QEMU 11.1 only',
    options: { ports: 'number' },
    make: (values) => virtioConsole({ ...set('ports', consolePorts(number(values['ports']))) }),
  },
};

function consolePorts(count: number | undefined): ConsolePortOptions[] | undefined {
  return count === undefined ? undefined : Array.from({ length: count }, (_, id) => ({ console: id === 0 }));
}

function inputKind(kind: string | undefined): typeof KEYBOARD | undefined {
  const kinds: Readonly<Record<string, typeof KEYBOARD>> = { keyboard: KEYBOARD, mouse: MOUSE, tablet: TABLET };
  if (kind === undefined) return undefined;
  if (!Object.hasOwn(kinds, kind)) throw new UsageError(`virtio-input: there is no kind ${JSON.stringify(kind)}`, { hint: `they are ${Object.keys(kinds).join(', ')}` });
  return kinds[kind];
}

/** `name`, or `name:option=value,option=value`. Throws UsageError for what there is not. */
export function deviceByName(text: string): Device {
  const [name = '', ...rest] = text.split(':');
  const entry = Object.hasOwn(DEVICES, name) ? DEVICES[name] : undefined;
  if (entry === undefined) {
    throw new UsageError(`there is no device named ${JSON.stringify(name)}`, { hint: `the devices are ${Object.keys(DEVICES).join(', ')}` });
  }
  const values: Record<string, string> = {};
  for (const pair of rest.join(':').split(',').filter((one) => one !== '')) {
    const [option = '', ...value] = pair.split('=');
    const kind = Object.hasOwn(entry.options, option) ? entry.options[option] : undefined;
    if (kind === undefined) {
      const known = Object.keys(entry.options);
      throw new UsageError(`${name} has no option ${JSON.stringify(option)}`, { hint: known.length === 0 ? 'it has none' : `its options are ${known.join(', ')}` });
    }
    values[option] = checked(`${name}: ${option}`, kind, value.length === 0 && kind === 'flag' ? 'on' : value.join('='));
  }
  return entry.make(values);
}

const PATTERNS: Readonly<Record<Kind, { pattern: RegExp; form: string }>> = {
  number: { pattern: /^\d+$/, form: 'a number, such as 4' },
  size: { pattern: /^\d+[kMG]?$/, form: 'a size in bytes, or with k, M or G (powers of 1024), such as 64M' },
  text: { pattern: /./s, form: 'a text' },
  flag: { pattern: /^(on|off)$/, form: 'on or off' },
};

function checked(what: string, kind: Kind, text: string): string {
  const { pattern, form } = PATTERNS[kind];
  if (!pattern.test(text)) throw new UsageError(`${what}: ${JSON.stringify(text)} is not ${form}`);
  return text;
}

function number(text: string | undefined): number | undefined {
  return text === undefined ? undefined : Number(text);
}

function size(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const unit = { k: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[text.at(-1) ?? ''];
  return unit === undefined ? Number(text) : Number(text.slice(0, -1)) * unit;
}

function flag(text: string | undefined): boolean | undefined {
  return text === undefined ? undefined : text === 'on';
}

/** `{ name: value }`, or nothing for undefined: an option that is absent is not one that is undefined. */
function set<K extends string, T>(name: K, value: T | undefined): Partial<Record<K, T>> {
  return value === undefined ? {} : { [name]: value } as Record<K, T>;
}
