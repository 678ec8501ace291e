// Boot a machine: from options to a guest that answers over SSH, with every wait on an event.
import { randomBytes } from 'node:crypto';
import { basename } from 'node:path';
import { dir } from 'tmp-promise';
import { BootError, DeadlineError } from '../errors.ts';
import { generateClientKey, withArchive } from '../image/index.ts';
import { Guest } from '../guest/guest.ts';
import { SshConnection } from '../guest/ssh.ts';
import type { Device } from '../qemu/attachment.ts';
import { placement, type ColdDevice } from '../qemu/command-line.ts';
import type { Console } from '../qemu/console.ts';
import type { QemuProcess } from '../qemu/process.ts';
import { failedStart } from './failed-start.ts';
import { launch, sshPort } from './launch.ts';
import { Machine } from './machine.ts';
import type { BootOptions } from './options.ts';
import { planMachine, type MachinePlan } from './plan.ts';
import { awaitColdPlugged } from './plug.ts';
import { Plugged } from './plugged.ts';
import { Trouble } from './trouble.ts';

/**
 * Boot a machine.
 * @throws UsageError for an unknown name or option, EnvironmentError when the host lacks something,
 * BootError when the guest does not come up, GuestFault when its kernel faults on the way,
 * MachineExitError when QEMU ends; nothing is left running then.
 */
export async function boot(options: BootOptions = {}): Promise<Machine> {
  return bootPlan(await planMachine(options), options.devices);
}

/** The same for a plan that was made before, with these devices in the machine's first ports. */
export async function bootPlan(plan: MachinePlan, given: readonly Device[] = []): Promise<Machine> {
  const { parts, preset, ports, bootTimeoutMs, commandTimeoutMs } = plan;
  const [{ path: directory }, clientKey] = await Promise.all([dir({ prefix: 'rootport-', mode: 0o700, unsafeCleanup: true }), generateClientKey()]);
  const nonce = randomBytes(12).toString('hex');
  const trouble = new Trouble();
  const plugged: Plugged[] = [];
  let process: QemuProcess | undefined;
  try {
    for (const [i, device] of given.entries()) {
      plugged.push(await Plugged.attach(device, { id: `dev${i}`, port: ports[i] ?? '', directory, trouble, qemu: { version: parts.qemu.version, accel: plan.shape.accel } }));
    }
    const devices: ColdDevice[] = plugged.map(({ id, port, attachment: { driver, properties, chardevs, netdevs } }) =>
      ({ id, driver, properties, chardevs, netdevs: netdevs ?? [], place: placement(preset, port) }));
    const shape = { ...plan.shape, devices };
    const started = await launch({
      qemu: parts.qemu, shape, directory, name: basename(directory), trouble, onProcess: (one) => { process = one; },
      start: {
        kernel: plan.kernelImage, initramfs: await withArchive(parts.image.initramfs, plan.archive, directory),
        append: [...plan.append, `rootport_nonce=${nonce}`, `rootport_key=${clientKey.publicBase64}`],
      },
    });
    const { console, qmp } = started;
    await guestReady(console, nonce, bootTimeoutMs, trouble.signal);
    const target = {
      port: await sshPort(qmp), privateKey: clientKey.privateKey, hostKeyBase64: parts.image.hostKeyBase64, nonce, timeoutMs: 10_000, signal: trouble.signal,
    };
    const ssh = await SshConnection.connect(target);
    const guest = new Guest(ssh, parts.kernel.release, commandTimeoutMs);
    const machine = new Machine({ parts, preset, ports, shape, directory, ...started, guest, trouble, plugged, sshTarget: target, restored: undefined });
    await awaitColdPlugged(machine);
    return machine;
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
