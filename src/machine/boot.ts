// Boot a machine: from options to a guest that answers over SSH, with every wait on an event.
import { randomBytes } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { dir } from 'tmp-promise';
import { BootError, DeadlineError } from '../errors.ts';
import { generateClientKey, withFiles } from '../image/index.ts';
import { Guest } from '../guest/guest.ts';
import { SshConnection } from '../guest/ssh.ts';
import { placement, type ColdDevice } from '../qemu/command-line.ts';
import type { Console } from '../qemu/console.ts';
import { findPreset, portIds, q35 } from '../qemu/preset.ts';
import type { QemuProcess } from '../qemu/process.ts';
import { forwardedPort, parseUsernet } from '../qemu/memory-map.ts';
import { defaultTcgThread } from '../qemu/versions.ts';
import { failedStart } from './failed-start.ts';
import { launch, type MachineShape } from './launch.ts';
import { Machine } from './machine.ts';
import { checkOptions, guestMemoryMiB, type BootOptions } from './options.ts';
import { resolveParts } from './parts.ts';
import { Plugged } from './plugged.ts';
import { Trouble } from './trouble.ts';

const PLAIN_APPEND = ['console=ttyS0', 'rdinit=/init'];
const QUICK_APPEND = [
  ...PLAIN_APPEND, 'quiet', 'nokaslr', 'mitigations=off', 'tsc=reliable', 'no_timer_check', 'random.trust_cpu=on',
  'cryptomgr.notests', 'raid=noautodetect', 'noreplace-smp',
];
/** Every deadline inside a guest is this much longer under TCG than under KVM. */
const COMMAND_TIMEOUT_MS = { kvm: 10_000, tcg: 30_000 } as const;
const BOOT_TIMEOUT_MS = { kvm: 20_000, tcg: 60_000 } as const;

/**
 * Boot a machine.
 * @throws UsageError for an unknown name or option, EnvironmentError when the host lacks something,
 * BootError when the guest does not come up, GuestFault when its kernel faults on the way,
 * MachineExitError when QEMU ends; nothing is left running then.
 */
export async function boot(options: BootOptions = {}): Promise<Machine> {
  checkOptions(options);
  const type = options.machine ?? q35();
  const preset = findPreset(type.preset);
  const ports = portIds(preset, type.ports ?? 4);
  const parts = await resolveParts(options);
  const accel = parts.accelerator.name;
  const timeoutMs = options.timeoutMs ?? BOOT_TIMEOUT_MS[accel];
  const { path: directory } = await dir({ prefix: 'rootport-', mode: 0o700, unsafeCleanup: true });
  const plain = options.bootMode === 'plain';
  const clientKey = generateClientKey();
  const nonce = randomBytes(12).toString('hex');
  const trouble = new Trouble();
  const plugged: Plugged[] = [];
  let process: QemuProcess | undefined;
  try {
    for (const [i, device] of (options.devices ?? []).entries()) {
      plugged.push(await Plugged.attach(device, { id: `dev${i}`, port: ports[i] ?? '', directory, trouble, qemu: { version: parts.qemu.version, accel } }));
    }
    const devices: ColdDevice[] = plugged.map(({ id, port, attachment: { driver, properties, chardevs, netdevs } }) =>
      ({ id, driver, properties, chardevs, netdevs: netdevs ?? [], place: placement(preset, port) }));
    const initramfs = await withFiles(parts.image.initramfs, options.files ?? {}, directory);
    const shape: MachineShape = {
      version: parts.qemu.version, preset, ports: ports.length, accel,
      cpus: type.cpus ?? 1, tcgThread: type.tcgThread ?? defaultTcgThread(parts.qemu.version), memoryMiB: guestMemoryMiB(type.memoryMiB, (await stat(initramfs)).size),
      devices, network: true, extraArgs: options.extraArgs ?? [],
    };
    const started = await launch({
      qemu: parts.qemu, shape, directory, name: basename(directory), trouble, onProcess: (one) => { process = one; },
      start: {
        kernel: plain ? parts.kernel.bzImage ?? parts.kernel.vmlinux : parts.kernel.vmlinux, initramfs,
        append: [...(plain ? PLAIN_APPEND : QUICK_APPEND), ...(preset.append ?? []), ...(options.append ?? []),
          `rootport_nonce=${nonce}`, `rootport_key=${clientKey.publicBase64}`],
      },
    });
    const { console, qmp } = started;
    await guestReady(console, nonce, timeoutMs, trouble.signal);
    const port = forwardedPort(parseUsernet(await qmp.hmp('info usernet')), 22);
    if (port === undefined) throw new BootError('QEMU forwards no port to the guest\'s SSH server');
    const target = { port, privateKey: clientKey.privateKey, hostKeyBase64: parts.image.hostKeyBase64, nonce, timeoutMs: 10_000, signal: trouble.signal };
    const ssh = await SshConnection.connect(target);
    const guest = new Guest(ssh, parts.kernel.release, COMMAND_TIMEOUT_MS[accel]);
    return new Machine({ parts, preset, ports, shape, directory, ...started, guest, trouble, plugged, sshTarget: target, restored: false });
  } catch (error) {
    return failedStart(error, { trouble, process, plugged, directory });
  }
}

/** Init's own ready mark with this boot's nonce: before it, a connection would wait seconds for nothing. */
async function guestReady(console: Console, nonce: string, timeoutMs: number, signal: AbortSignal): Promise<void> {
  try {
    await console.waitForLine(`rootport-ready ${nonce}`, { timeoutMs, signal, what: 'the guest to come up' });
  } catch (error) {
    if (!(error instanceof DeadlineError)) throw error;
    throw new BootError(`the guest did not come up in ${timeoutMs / 1000} s`, {
      cause: error,
      hint: console.text === '' ? 'the kernel printed nothing: is it an x86-64 kernel with CONFIG_PVH and a serial console?'
        : 'the console tail says how far it came; a slow host may need timeoutMs',
    });
  }
}
