// A virtio console to plug, with up to 127 ports: QEMU 11.1's vhost-user-test-device-pci with this process as its back
// end (no QEMU has a vhost-user console of its own). What it does is device.ts's, what a port does port.ts's.
import { UsageError } from '../../errors.ts';
import { CARRIES_ANY } from '../virtio-device/index.ts';
import { vhostUserDevice } from '../vhost-user-device.ts';
import type { BackEndFaults, VhostUserDevice } from '../vhost-user-device.ts';
import { VirtioConsoleDevice } from './device.ts';
import type { ConsoleSize } from './device.ts';
import type { ConsolePort, ConsolePortOptions } from './port.ts';

export type { ConsoleSize } from './device.ts';
export type { ConsolePort, ConsolePortOptions } from './port.ts';

export interface VirtioConsoleOptions extends BackEndFaults {
  /** The ports that are there from the start, from id 0 on: one console unless told. */
  readonly ports?: readonly ConsolePortOptions[];
  /** The most that there can be at a time, 1 to 127; 4 unless told, or as many as `ports` has. */
  readonly maxPorts?: number;
  /**
   * Offer VIRTIO_CONSOLE_F_MULTIPORT (default). Without it there is one port: a console without a name, whose size
   * is in config space.
   */
  readonly multiport?: boolean;
  /** Offer VIRTIO_CONSOLE_F_SIZE: this one at first. */
  readonly size?: ConsoleSize;
}

/** queue(0) is to port 0 of the guest, queue(1) from it; 2 and 3 are control; 2n + 2 and 2n + 3 are port n's. */
export interface VirtioConsole extends VhostUserDevice {
  /** Those that are there now, by id. */
  readonly ports: readonly ConsolePort[];
  /** UsageError when there is no such port. */
  port(id: number): ConsolePort;
  /** Hot-add a port under the lowest free id. UsageError when maxPorts are there, or without `multiport`. */
  addPort(options?: ConsolePortOptions): ConsolePort;
  /** Hot-remove a port. What waits on it fails with a ProtocolError. */
  removePort(port: ConsolePort): void;
  /**
   * Every console of it has another size: told by a control message with `multiport`; without, by a config change,
   * for which `size` must have been given.
   */
  resize(size: ConsoleSize): void;
  /** What the driver wrote to config space's emerg_wr, character by character. */
  readonly emergency: string;
  /** What the driver did against the spec, the first thousand times. */
  readonly refused: readonly string[];
}

const PORTS_MAX = 127;
const NAME_BYTES_MAX = 255;

/** Needs QEMU 11.1 or newer: `useMachine({ qemu: '11.1' })`. Throws UsageError for ports that there cannot be. */
export function virtioConsole(options: VirtioConsoleOptions = {}): VirtioConsole {
  const { ports = [{ console: true }], multiport = true, maxPorts = multiport ? Math.max(4, ports.length) : 1, size, ...faults } = options;
  if (!Number.isInteger(maxPorts) || maxPorts < 1 || maxPorts > PORTS_MAX) throw new UsageError(`virtioConsole: maxPorts ${maxPorts} is not 1 to ${PORTS_MAX}`);
  if (ports.length > maxPorts) throw new UsageError(`virtioConsole: ${ports.length} ports are more than maxPorts, ${maxPorts}`);
  if (!multiport && (maxPorts !== 1 || ports.length !== 1 || ports[0]?.console !== true || ports[0].name !== undefined || ports[0].open === false)) {
    throw new UsageError('virtioConsole: without multiport there is one port, an open console without a name');
  }
  ports.forEach(checkPort);
  if (size !== undefined) checkSize(size);
  const { core, device } = vhostUserDevice({
    kind: 'virtio-console',
    maker: 'virtioConsole',
    ...CARRIES_ANY,
    guest: { modules: ['virtio_pci', 'virtio_console'], ready: ports.length === 0 ? 'virtio*' : `virtio*/virtio-ports/vport*p${ports.length - 1}` },
    faults,
    make: (log) => new VirtioConsoleDevice({ ports, maxPorts, multiport, size, log }),
  });
  return {
    ...device,
    get ports() {
      return core.ports;
    },
    port(id) {
      const port = core.ports.find((one) => one.id === id);
      if (port === undefined) throw new UsageError(`virtioConsole: there is no port ${id}`, { hint: `There are ${core.ports.map((one) => one.id).join(', ') || 'none'}.` });
      return port;
    },
    addPort(port = {}) {
      checkPort(port);
      return core.addPort(port);
    },
    removePort: ({ id }) => core.removePort(id),
    resize(to) {
      checkSize(to);
      if (!multiport && size === undefined) throw new UsageError('virtioConsole: without multiport a size is told only to who was given one', { hint: 'Make it with `size`.' });
      core.resize(to);
      if (!multiport) device.gate.interruptConfig();
    },
    get emergency() {
      return core.emergency;
    },
    refused: core.refused,
  };
}

function checkPort({ name = '' }: ConsolePortOptions): void {
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) throw new UsageError(`virtioConsole: a name of ${Buffer.byteLength(name)} bytes`, { hint: `at most ${NAME_BYTES_MAX}` });
}

function checkSize({ columns, rows }: ConsoleSize): void {
  for (const value of [columns, rows]) {
    if (!Number.isInteger(value) || value < 1 || value > 0xffff) throw new UsageError(`virtioConsole: a console of ${columns} columns and ${rows} rows`, { hint: 'each 1 to 65535' });
  }
}
