// --qemu, --kernel and --accel, the same for every command, and as the environment that useMachine reads
// (src/machine/default-options.ts).
import { type Command, Option } from 'commander';
import { kernelNames } from '../image/index.ts';
import { defaultOptions } from '../machine/default-options.ts';
import type { BootOptions } from '../machine/options.ts';
import { qemuNames } from '../qemu/find.ts';

export interface MachineOptions {
  readonly qemu?: string;
  readonly kernel?: string;
  readonly accel?: string;
}

export function addMachineOptions(command: Command): Command {
  return command
    .option('--qemu <qemu>', `host, a path, or a package tree: ${qemuNames().join(', ')} (default: the host's if it is 7.2 or newer, else 10.0)`)
    .option('--kernel <kernel>', `${kernelNames().join(', ')}, or a path: a built kernel tree, or a kernel image (default: 6.1)`)
    .addOption(new Option('--accel <accel>', 'default: auto, which proves KVM before it takes it').choices(['auto', 'kvm', 'tcg']));
}

/** The environment for processes that boot machines with these options. */
export function machineEnv({ qemu, kernel, accel }: MachineOptions): Record<string, string> {
  return {
    ...(qemu === undefined ? {} : { ROOTPORT_QEMU: qemu }),
    ...(kernel === undefined ? {} : { ROOTPORT_KERNEL: kernel }),
    ...(accel === undefined ? {} : { ROOTPORT_ACCEL: accel }),
  };
}

/** Options over the environment's. */
export function bootOptions(options: MachineOptions): BootOptions {
  return defaultOptions({ ...process.env, ...machineEnv(options) });
}
