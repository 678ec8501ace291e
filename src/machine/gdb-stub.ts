// gdb at a guest: QEMU's stub, opened on a machine that runs (QEMU: docs/system/gdb.rst, monitor command gdbserver), on a
// socket in the machine's own directory; and the line that starts gdb with the modules' symbols where the guest has them
// (Linux: kernel/module/sysfs.c, /sys/module/<name>/sections). While gdb has stopped the guest nothing in it answers:
// waits go on to their deadlines. It is no debugger, and brings none.
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { GuestCommandError, ProtocolError, RootportError, UsageError } from '../errors.ts';
import type { Guest } from '../guest/guest.ts';
import { shellWord } from '../shell-word.ts';
import type { Machine } from './machine.ts';

export interface ModuleSections {
  /** As /sys/module has it: underscores. */
  readonly name: string;
  /** With its symbols and debug information. */
  readonly file: string;
  /** By the section's name, where the guest has it. */
  readonly addresses: ReadonlyMap<string, bigint>;
}

/** sockaddr_un's path, with its end. */
const SOCKET_PATH_MAX = 107;
/** Code and data that stay; not what is freed once the module is up (.init.*), nor what is of no symbol. */
const LASTING = /^\.(text|data|rodata|bss|exit|ref|noinstr)(\.|$)(?!.*percpu)/;
/** Of its own, so that nobody else's trace is read empty. */
const LOADS = '/sys/kernel/tracing/instances/rootport-gdb';

export class GdbStub {
  readonly #machine: Machine;
  /** A Unix socket; gdb takes one since 8.3. */
  readonly socket: string;

  private constructor(machine: Machine, socket: string) {
    this.#machine = machine;
    this.socket = socket;
  }

  /**
   * Once a machine. The guest runs on until gdb comes, which stops it; it goes on when gdb continues or detaches.
   * @throws UsageError when the directory for temporary files is too long a path; ProtocolError when QEMU opens none
   */
  static async open(machine: Machine): Promise<GdbStub> {
    const socket = join(machine.innards.directory, 'gdb');
    if (Buffer.byteLength(socket) > SOCKET_PATH_MAX) throw new UsageError(`${socket} is too long a path for a socket`, { hint: 'set TMPDIR to a shorter one' });
    const said = await machine.qmp.hmp(`gdbserver "unix:${socket.replaceAll(',', ',,')},server=on,wait=off"`);
    if (!existsSync(socket)) throw new ProtocolError(`QEMU opens no gdb stub: ${said.trim()}`, { received: said });
    return new GdbStub(machine, socket);
  }

  /** Of what loadModule got from buildModule and is loaded now; its own last, where a name was loaded twice. */
  async modules(): Promise<ModuleSections[]> {
    const { guest } = this.#machine;
    const files = new Map(guest.loadedModules.flatMap(({ unstripped }) => unstripped).map((file) => [moduleName(file), file]));
    const found: ModuleSections[] = [];
    for (const [name, file] of files) {
      const addresses = await sectionsOf(guest, name);
      if (addresses !== undefined) found.push({ name, file, addresses });
    }
    return found;
  }

  /** The line for a shell that starts gdb, with the addresses as they are now: of a module that is loaded anew there are others. */
  async command(): Promise<string> {
    return gdbCommand(kernelSymbols(this.#machine), this.socket, await this.modules());
  }

  /** Resolves when gdb lets the guest run, which it stopped when it came; rejects when the machine is lost. */
  async continued(): Promise<void> {
    const { qmp, signal } = this.#machine;
    let forget = (): void => {};
    await new Promise<void>((resolve, reject) => {
      const lost = (): void => reject(signal.reason as Error);
      const stop = qmp.on('RESUME', () => resolve());
      forget = () => { stop(); signal.removeEventListener('abort', lost); };
      signal.addEventListener('abort', lost);
      if (signal.aborted) lost();
    }).finally(() => forget());
  }

  /**
   * Tell the line anew at every load of one of these modules from now on, whoever loads it (trace event module_load).
   * Returns how to stop. A kernel without that event tells nothing.
   */
  async onLoad(tell: (command: string) => void): Promise<() => void> {
    const { guest } = this.#machine;
    // Not cat: busybox's takes sendfile(2), by which lines of trace_pipe are lost (6.1), and tasks that write them hang.
    const { channel } = await guest.start(`mkdir -p ${LOADS} && cd ${LOADS} && echo 1 >events/module/module_load/enable && exec dd if=trace_pipe bs=4096 2>/dev/null`);
    let rest = '';
    channel.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString('latin1')).split('\n');
      rest = lines.pop() ?? '';
      const known = new Set(guest.loadedModules.flatMap(({ unstripped }) => unstripped).map(moduleName));
      if (!lines.some((line) => known.has(/ module_load: (\S+)/.exec(line)?.[1] ?? ''))) return;
      this.command().then(tell, (error: unknown) => { if (!(error instanceof RootportError)) throw error; }); // stopped by gdb, or gone
    });
    return () => channel.close();
  }
}

/** Pure: the line for a shell. The sources are the copies that were built, whatever their author has written since. */
export function gdbCommand(kernel: string | undefined, socket: string, modules: readonly ModuleSections[]): string {
  const symbols = modules.map(({ file, addresses }) => {
    const text = addresses.get('.text');
    const others = [...addresses].filter(([name]) => name !== '.text' && LASTING.test(name)).map(([name, address]) => `-s ${name} ${hex(address)}`);
    return ['add-symbol-file', gdbWord(file), ...(text === undefined ? [] : [hex(text)]), ...others].join(' ');
  });
  // gdb asks before it takes symbols, and nobody answers a command line.
  const commands = ['set confirm off', `target remote ${socket}`, ...symbols, ...modules.map(({ file }) => `directory ${gdbWord(dirname(file))}`)];
  return ['gdb', ...(kernel === undefined ? [] : [shellWord(kernel)]), ...commands.map((one) => `-ex ${shellWord(one)}`)].join(' ');
}

/** A tree's own vmlinux has symbols; the one that is booted of a package has none, but says what machine it is. */
function kernelSymbols({ parts: { kernel } }: Machine): string {
  const own = kernel.buildDir === undefined ? undefined : join(kernel.buildDir, 'vmlinux');
  return own !== undefined && existsSync(own) ? own : kernel.vmlinux;
}

async function sectionsOf(guest: Guest, name: string): Promise<Map<string, bigint> | undefined> {
  try {
    // One process: busybox's grep names each file before its line.
    const { stdout } = await guest.run(`cd /sys/module/${shellWord(name)}/sections && grep -s '' .[!.]* [!.]* || [ -e .text ]`);
    return new Map(stdout.split('\n').flatMap((line): [string, bigint][] => {
      const [, section, address] = /^(.+):(0x[0-9a-f]+)$/.exec(line) ?? [];
      return section === undefined || address === undefined ? [] : [[section, BigInt(address)]];
    }));
  } catch (error) {
    if (error instanceof GuestCommandError) return undefined; // not loaded
    throw error;
  }
}

function moduleName(file: string): string {
  return basename(file).replace(/\.ko$/, '').replaceAll('-', '_');
}

function hex(address: bigint): string {
  return `0x${address.toString(16)}`;
}

/** gdb's own quoting (gdb_buildargv). */
function gdbWord(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `"${path.replace(/["\\]/g, '\\$&')}"`;
}
