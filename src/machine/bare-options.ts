// What `bare` takes, and the checks that need no machine.
import { UsageError } from '../errors.ts';
import type { Progress } from '../packages/index.ts';
import type { Device } from '../qemu/attachment.ts';
import type { MachineType } from '../qemu/preset.ts';
import { checkOptions } from './options.ts';

export interface BareOptions {
  /** q35(), q35NativeHotplug(), pc(); default q35() with 4 ports. 128 MiB of RAM. */
  readonly machine?: MachineType;
  /** `'host'`, a tree (`'7.2'`, `'10.0'`, `'11.1'`), or a path. Default: the host's if 7.2 or newer, else 10.0. */
  readonly qemu?: string;
  /** Devices that are there from the start, in the machine's first ports. */
  readonly devices?: readonly Device[];
  /** Arguments added to QEMU's: further bridges and device models. */
  readonly extraArgs?: readonly string[];
  /** Of every command and wait that names no deadline of its own. Default 5 s. */
  readonly timeoutMs?: number;
  /** Where progress is shown; default: nowhere. */
  readonly progress?: Progress;
}

const KNOWN = new Set<string>(['machine', 'qemu', 'devices', 'extraArgs', 'timeoutMs', 'progress']);

export function checkBareOptions(options: BareOptions): void {
  for (const name of Object.keys(options)) {
    if (!KNOWN.has(name)) throw new UsageError(`bare has no option ${JSON.stringify(name)}`, { hint: `the options are ${[...KNOWN].join(', ')}` });
  }
  const { machine, devices } = options;
  checkOptions({ ...(machine === undefined ? {} : { machine }), ...(devices === undefined ? {} : { devices }) });
}
