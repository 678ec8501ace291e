// A virtio GPIO device to plug: QEMU's vhost-user-gpio-pci with this process as what the lines lead to. The test drives
// inputs, which may interrupt the guest, and sees what the guest makes of its lines. QEMU gives it no MSI-X: INTx only.
import { UsageError } from '../../errors.ts';
import { Arrivals } from '../arrivals.ts';
import type { WaitOptions } from '../arrivals.ts';
import { vhostUserDevice } from '../vhost-user-device.ts';
import type { BackEndFaults, VhostUserDevice } from '../vhost-user-device.ts';
import { VirtioGpioDevice } from './device.ts';
import { VIRTIO_GPIO_DIRECTION, VIRTIO_GPIO_IRQ_TYPE } from './layout.ts';

export interface VirtioGpioOptions extends BackEndFaults {
  /** Names of the lines, unique or empty; or how many, without names. 1 to 1024. */
  readonly lines?: readonly string[] | number;
}

export type GpioDirection = keyof typeof VIRTIO_GPIO_DIRECTION;
export type GpioIrqType = keyof typeof VIRTIO_GPIO_IRQ_TYPE;

/** What the guest did to a line. */
export type GpioChange = { readonly line: number } & (
  | { readonly what: 'direction'; readonly value: GpioDirection }
  | { readonly what: 'value'; readonly value: 0 | 1 }
  | { readonly what: 'irqType'; readonly value: GpioIrqType });

export interface GpioLine {
  readonly index: number;
  readonly name: string;
  /** As the guest set it. */
  readonly direction: GpioDirection;
  /** What is on the line: the guest's value when it is an output, else what the test drives. */
  readonly value: 0 | 1;
  /** The interrupt that the guest asked for. */
  readonly irqType: GpioIrqType;
  /** Drive it, as what is at its other end would. Interrupts the guest if it asked for this edge or level. */
  drive(level: 0 | 1): void;
}

export interface VirtioGpio extends VhostUserDevice {
  /** By index or name. UsageError when there is none. */
  line(line: number | string): GpioLine;
  /** The next thing that the guest did to a line and this method has not given yet. */
  nextChange(options?: WaitOptions): Promise<GpioChange>;
}

/**
 * Throws UsageError for lines that there are not. Debian's kernels have no driver for it (GPIO_VIRTIO is off): load
 * your own before plug().
 */
export function virtioGpio({ lines = 8, ...faults }: VirtioGpioOptions = {}): VirtioGpio {
  const names = typeof lines === 'number' ? new Array<string>(Number.isInteger(lines) && lines > 0 && lines <= 1024 ? lines : 0).fill('') : lines;
  if (names.length < 1 || names.length > 1024) throw new UsageError('virtioGpio: there are 1 to 1024 lines');
  const given = names.filter((name) => name !== '');
  if (new Set(given).size !== given.length || given.some((name) => name.includes('\0'))) throw new UsageError('virtioGpio: two lines have one name, or a name has a NUL');
  const changes = new Arrivals<GpioChange>();
  const { core, device } = vhostUserDevice({
    kind: 'virtio-gpio',
    driver: 'vhost-user-gpio-pci',
    properties: {},
    guest: { modules: ['virtio_pci'], ready: 'virtio*' },
    faults,
    make: (log) => new VirtioGpioDevice({
      names, log,
      onChange: (line, what, value) => {
        if (what === 'value') changes.push({ line, what, value: value === 1 ? 1 : 0 });
        else if (what === 'direction') changes.push({ line, what, value: nameOf(VIRTIO_GPIO_DIRECTION, value) });
        else changes.push({ line, what, value: nameOf(VIRTIO_GPIO_IRQ_TYPE, value) });
      },
    }),
  });
  return {
    ...device,
    line(which) {
      const index = typeof which === 'number' ? which : names.indexOf(which);
      const state = core.lines[index];
      if (state === undefined || which === '') throw new UsageError(`virtioGpio: there is no line ${JSON.stringify(which)}`, { hint: `0 to ${names.length - 1}${given.length > 0 ? `, or ${given.join(', ')}` : ''}` });
      return {
        index,
        name: state.name,
        get direction() {
          return nameOf(VIRTIO_GPIO_DIRECTION, state.direction);
        },
        get value() {
          return (state.direction === VIRTIO_GPIO_DIRECTION.OUT ? state.output : state.input) === 1 ? 1 : 0;
        },
        get irqType() {
          return nameOf(VIRTIO_GPIO_IRQ_TYPE, state.irqType);
        },
        drive: (level) => core.drive(index, level === 1 ? 1 : 0),
      };
    },
    nextChange: (options) => changes.next('the guest to change a GPIO line', options),
  };
}

/** The device takes no value that has no name. */
function nameOf<T extends Readonly<Record<string, number>>>(table: T, value: number): keyof T {
  return Object.keys(table).find((name) => table[name] === value) as keyof T;
}
