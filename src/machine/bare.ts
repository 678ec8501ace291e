// The bare tier: QEMU without an operating system, driven over qtest. The firmware halts at once; this process
// does what firmware and drivers would. Source: QEMU system/qtest.c; Intel SDM 9.1.4 (the reset vector).
// Always under TCG: no instruction matters, and the interrupt controller is then QEMU's own.
import { writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { dir } from 'tmp-promise';
import { silentProgress } from '../packages/index.ts';
import { bareCommandLine, placement, type ColdDevice } from '../qemu/command-line.ts';
import { Console } from '../qemu/console.ts';
import { resolveQemu } from '../qemu/find.ts';
import { findPreset, portIds, q35 } from '../qemu/preset.ts';
import { CONSOLE_FD, QemuProcess, QMP_FD, QTEST_FD } from '../qemu/process.ts';
import { QmpClient } from '../qmp/client.ts';
import { failedStart } from './failed-start.ts';
import { BareMachine } from './bare-machine.ts';
import { checkBareOptions, type BareOptions } from './bare-options.ts';
import { openBareBus } from './bare-bus.ts';
import { QtestClient } from '../qtest/client.ts';
import { Plugged } from './plugged.ts';
import { Trouble } from './trouble.ts';

const FIRMWARE_BYTES = 64 * 1024;
const RESET_VECTOR = 0xfff0;
/** cli; hlt; jmp to itself. */
const HALT = [0xfa, 0xf4, 0xeb, 0xfd] as const;
const MEMORY_MIB = 128;
const DEFAULT_TIMEOUT_MS = 5000;
/** QEMU may have to be read from a cold disk. */
const START_TIMEOUT_MS = 20_000;

/**
 * Start QEMU without an operating system and set its PCI hierarchy up: buses numbered, BARs placed, decoding
 * and bus mastering on.
 * @throws UsageError for an unknown name or option, EnvironmentError when the host lacks something,
 * MachineExitError when QEMU ends; nothing is left running then.
 */
export async function bare(options: BareOptions = {}): Promise<BareMachine> {
  checkBareOptions(options);
  const type = options.machine ?? q35();
  const preset = findPreset(type.preset);
  const ports = portIds(preset, type.ports ?? 4);
  const qemu = await resolveQemu(options.qemu, options.progress ?? silentProgress);
  const memoryMiB = type.memoryMiB ?? MEMORY_MIB;
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const { path: directory } = await dir({ prefix: 'rootport-', mode: 0o700, unsafeCleanup: true });
  const trouble = new Trouble();
  const plugged: Plugged[] = [];
  let process: QemuProcess | undefined;
  try {
    for (const [i, device] of (options.devices ?? []).entries()) {
      plugged.push(await Plugged.attach(device, { id: `dev${i}`, port: ports[i] ?? '', directory, trouble, qemu: { version: qemu.version, accel: 'tcg' } }));
    }
    const devices: ColdDevice[] = plugged.map(({ id, port, attachment: { driver, properties, chardevs, netdevs } }) =>
      ({ id, driver, properties, chardevs, netdevs: netdevs ?? [], place: placement(preset, port) }));
    const firmware = join(directory, 'halt.bin');
    await writeFile(firmware, haltingFirmware());
    const args = bareCommandLine({
      name: basename(directory), version: qemu.version, preset, ports: ports.length, accel: 'tcg', cpus: type.cpus ?? 1,
      tcgThread: type.tcgThread ?? 'single', memoryMiB, firmware, devices,
      qmpFd: QMP_FD, consoleFd: CONSOLE_FD, qtestFd: QTEST_FD, extraArgs: options.extraArgs ?? [],
    });
    process = await QemuProcess.start({ command: [...qemu.command, ...args], env: qemu.env, directory, qtest: true });
    const console = new Console(process.console, { endReason: () => trouble.reason() });
    trouble.watch(process, console);
    const end = { signal: trouble.signal, endReason: () => trouble.reason() };
    const qtest = new QtestClient(process.qtest as NonNullable<typeof process.qtest>, { timeoutMs, ...end, recorder: trouble.recorder });
    const qmp = await QmpClient.connect(process.qmp, { timeoutMs: START_TIMEOUT_MS, ...end, recorder: trouble.recorder });
    for (const { attachment } of plugged) await attachment.ready?.({ timeoutMs, signal: trouble.signal });
    const bus = await openBareBus(qtest, preset, memoryMiB);
    return new BareMachine({ qemu, preset, ports, directory, process, console, qmp, qtest, trouble, plugged, bus, timeoutMs });
  } catch (error) {
    return failedStart(error, { trouble, process, plugged, directory });
  }
}

/** 64 KiB that are mapped to end at 4 GiB and at 1 MiB: all the firmware there is. */
function haltingFirmware(): Uint8Array {
  const image = new Uint8Array(FIRMWARE_BYTES);
  image.set(HALT, RESET_VECTOR);
  return image;
}
