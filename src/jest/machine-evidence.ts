// One machine as evidence of the test that runs on it: what it recorded, what is on its buses, and what a folder of a
// failure holds of it. Reads memory only, but for look(), which asks the living machine.
import { RootportError } from '../errors.ts';
import type { BareMachine } from '../machine/bare-machine.ts';
import { Machine } from '../machine/machine.ts';
import { functionsOf, type QueryPciBus } from '../pci/query-pci.ts';
import { reproScript } from '../qemu/repro-script.ts';
import type { RecorderMark } from '../recorder.ts';
import type { MachineEvidence } from './evidence.ts';

/** How far each machine's recorder was read for the tests before. */
const read = new WeakMap<object, RecorderMark>();
const LOOK_TIMEOUT_MS = 2000;

export function evidenceOf(machine: Machine | BareMachine, consoleLine: number, deviceLogLines: number): MachineEvidence {
  const { innards } = machine;
  const { recorder } = innards.trouble;
  const evidence: MachineEvidence = {
    description: machine.description,
    repro: machine.repro,
    recorder,
    recording() {
      const recording = recorder.since(read.get(innards));
      read.set(innards, recorder.mark());
      return recording;
    },
    files() {
      const own = machine.console.lines.filter(({ number }) => number >= consoleLine).map(({ text }) => text);
      return {
        'console.log': machine.console.text,
        'qemu-stderr.log': innards.process.stderr,
        'back-ends.log': machine.deviceLog.slice(deviceLogLines).join('\n'),
        'machine.txt': `${machine.description}\n${machine.repro}`,
        ...(machine instanceof Machine ? { 'dmesg.log': (evidence.kernelLog ?? own).join('\n'), 'repro.sh': scriptOf(machine) } : {}),
      };
    },
  };
  return evidence;
}

/** What is on the buses, asked of QEMU: nothing when it does not answer. */
export async function look(machine: Machine | BareMachine, evidence: MachineEvidence): Promise<void> {
  if (machine.signal.aborted) return;
  try {
    evidence.pciTree = treeText(await machine.qmp.execute<QueryPciBus[]>('query-pci', undefined, { timeoutMs: LOOK_TIMEOUT_MS }));
  } catch (error) {
    if (!(error instanceof RootportError)) throw error;
  }
}

/** A line a function, bridges before what is behind them. */
function treeText(buses: readonly QueryPciBus[]): string {
  const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
  return functionsOf(buses).map(({ bus, slot, function: fn, id, class_info: kind, qdev_id: name, regions, pci_bridge: bridge }) => {
    const head = `${'  '.repeat(bus === 0 ? 0 : 1)}${hex(bus, 2)}:${hex(slot, 2)}.${fn} ${hex(id.vendor, 4)}:${hex(id.device, 4)} ${kind.desc ?? `class ${hex(kind.class, 4)}`}${name === '' ? '' : ` (${name})`}`;
    const behind = bridge === undefined ? '' : ` [bus ${hex(bridge.bus.secondary, 2)}]`;
    const bars = regions.map((one) => ` BAR${one.bar}=${one.address === -1 ? 'off' : `0x${one.address.toString(16)}`}/${one.size}`);
    return `${head}${behind}${bars.join('')}`;
  }).join('\n');
}

function scriptOf({ innards }: Machine): string {
  const { process, parts, preset, plugged, restored } = innards;
  return reproScript({
    command: process.options.command, env: process.options.env,
    boot: { kernel: parts.kernel.vmlinux, initramfs: parts.image.initramfs, append: ['console=ttyS0', 'rdinit=/init', ...(preset.append ?? [])] },
    lacks: [
      ...(restored ? ['the state of the snapshot that the test went on from: this boots anew'] : []),
      ...plugged.map(({ device, port }) => `${device.kind} in ${port}: its back end lived in the test's process`),
    ],
  });
}
