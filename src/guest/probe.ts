// The client of the test kernel module rootport_probe (images/probe): loads it, and binds it to PCI
// functions through sysfs' driver_override. What it does to a bound function is in probe-function.ts.
import { ProtocolError, UsageError } from '../errors.ts';
import type { BuiltModule } from '../image/index.ts';
import { packageFile } from '../packages/index.ts';
import { awaitProbe } from './probe-end.ts';
import { ProbedFunction, type ProbeGuest } from './probe-function.ts';
import { checkBdf, parseEvents, PROBE_DEBUGFS, PROBE_DRIVER, type ProbeEvent, type ProbeRefusal } from './probe-protocol.ts';

/** What loading the module takes; Machine is one. */
export interface ProbeHost {
  readonly guest: ProbeGuest & { loadModule(module: BuiltModule): Promise<void> };
  buildModule(directory: string): Promise<BuiltModule>;
}

export class Probe {
  readonly #guest: ProbeGuest;

  /** For a guest that has the module loaded. */
  constructor(guest: ProbeGuest) {
    this.#guest = guest;
  }

  /** Build the module for this machine's kernel (from the cache after the first time) and load it, once. */
  static async load(host: ProbeHost): Promise<Probe> {
    const { stdout } = await host.guest.shell.run(`[ -d /sys/module/${PROBE_DRIVER} ] && echo loaded || :`);
    if (stdout === '') await host.guest.loadModule(await host.buildModule(packageFile('images/probe')));
    return new Probe(host.guest);
  }

  /**
   * Take a function from its driver, if it has one, and bind the probe to it. Resolves when sysfs shows
   * the probe as its driver. Binding again is no error.
   * @throws UsageError for a function that is not there, or when the module is not loaded
   * @throws ProtocolError when the kernel does not bind it
   */
  async bind(bdf: string): Promise<ProbedFunction> {
    const answer = await this.#sysfs(bdf, [
      `if [ ! -d $d ]; then echo missing`,
      `elif [ ! -d ${PROBE_DEBUGFS} ]; then echo unloaded`,
      `else`,
      `  before=$(readlink $d/driver); before=\${before##*/}; echo "before $before"`,
      `  if [ "$before" != ${PROBE_DRIVER} ]; then`,
      `    echo ${PROBE_DRIVER} >$d/driver_override`,
      `    [ -z "$before" ] || echo ${bdf} >$d/driver/unbind`,
      `    echo ${bdf} >/sys/bus/pci/drivers_probe`,
      // A function that is still being added is in sysfs and matches no driver yet (match_driver, in
      // pci_bus_match and pci_bus_add_device): the kernel offers it to them itself a moment later.
      `    n=0; while [ ! -e $d/driver ] && [ $n -lt 50 ]; do sleep 0.02; n=$((n+1)); done`,
      `    ${awaitProbe(bdf)}`,
      `  fi`,
      `  now=$(readlink $d/driver); echo "now \${now##*/}"`,
      `fi`,
    ]);
    if (answer.said === 'missing') throw missing(bdf);
    if (answer.said === 'unloaded') {
      throw new UsageError(`the kernel module ${PROBE_DRIVER} is not loaded in the guest`, { hint: 'Probe.load(machine) builds and loads it' });
    }
    if (answer.now !== PROBE_DRIVER) {
      throw new ProtocolError(`the guest's kernel did not bind ${PROBE_DRIVER} to ${bdf}${answer.stderr === '' ? '' : `: ${answer.stderr}`}`, {
        hint: 'the console tail or dmesg may say why', sent: `bind ${bdf}`, received: answer.stdout,
      });
    }
    return new ProbedFunction(this.#guest, bdf, answer.before === PROBE_DRIVER ? undefined : answer.before);
  }

  /**
   * Unbind the probe and clear driver_override. With `restore`, the driver that the probe took the
   * function from is bound again, and verified. Resolves with the driver that is bound then.
   * @throws UsageError when the probe is not bound to it
   * @throws ProtocolError when the former driver does not come back
   */
  async unbind(fn: ProbedFunction, { restore = false }: { readonly restore?: boolean } = {}): Promise<string | undefined> {
    const { bdf, previousDriver } = fn;
    const answer = await this.#sysfs(bdf, [
      `if [ ! -d $d ]; then echo missing`,
      `else`,
      `  before=$(readlink $d/driver); echo "before \${before##*/}"`,
      `  if [ "\${before##*/}" = ${PROBE_DRIVER} ]; then`,
      `    echo >$d/driver_override`,
      `    echo ${bdf} >$d/driver/unbind`,
      ...(restore && previousDriver !== undefined ? [`    echo ${bdf} >/sys/bus/pci/drivers_probe`] : []),
      `  fi`,
      `  now=$(readlink $d/driver); echo "now \${now##*/}"`,
      `fi`,
    ]);
    if (answer.said === 'missing') throw missing(bdf);
    if (answer.before !== PROBE_DRIVER) {
      throw new UsageError(`${bdf} is not bound to ${PROBE_DRIVER} but to ${answer.before ?? 'no driver'}`);
    }
    if (restore && answer.now !== previousDriver) {
      throw new ProtocolError(`${bdf} did not go back to ${previousDriver ?? 'no driver'}${answer.stderr === '' ? '' : `: ${answer.stderr}`}`, {
        sent: `unbind ${bdf}`, received: answer.stdout,
      });
    }
    return answer.now;
  }

  /** What the PCI core asked of the module, oldest first: it survives the function's removal. */
  async events({ bdf, since = 0 }: { readonly bdf?: string; readonly since?: number } = {}): Promise<ProbeEvent[]> {
    const { stdout } = await this.#guest.shell.run(`cat ${PROBE_DEBUGFS}/events`);
    return parseEvents(stdout).filter((event) => event.sequence > since && (bdf === undefined || event.bdf === bdf));
  }

  async #sysfs(bdf: string, script: readonly string[]): Promise<SysfsAnswer> {
    const { stdout, stderr } = await this.#guest.shell.run([`d=/sys/bus/pci/devices/${checkBdf(bdf)}`, ...script].join('\n'));
    const driver = (when: string): string | undefined => new RegExp(`^${when} (.+)$`, 'm').exec(stdout)?.[1];
    return { stdout, stderr: stderr.trim(), said: stdout.trim(), before: driver('before'), now: driver('now') };
  }
}

interface SysfsAnswer {
  readonly stdout: string;
  readonly stderr: string;
  readonly said: string;
  readonly before: string | undefined;
  readonly now: string | undefined;
}

function missing(bdf: string): UsageError {
  const cause: ProbeRefusal = { errno: 19, errnoName: 'ENODEV', reason: 'no such PCI function' };
  return new UsageError(`the guest has no PCI function ${bdf} (ENODEV)`, { cause });
}
