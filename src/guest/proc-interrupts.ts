// /proc/interrupts parsed: how often each interrupt was handled on each CPU, the guest's own witness.
// Source: kernel/irq/proc.c show_interrupts, arch/x86/kernel/irq.c arch_show_interrupts. Pure.

export interface InterruptLine {
  /** `24`, or an architecture's own name: `NMI`, `LOC`. */
  readonly label: string;
  /** The Linux interrupt number; undefined for the architecture's own lines. */
  readonly irq: number | undefined;
  /** Times handled, in the order of `cpus`; fewer than CPUs for machine-wide lines such as ERR. 32 bits: they wrap. */
  readonly counts: readonly number[];
  /** The sum of `counts`. */
  readonly total: number;
  /** The interrupt chip: `PCI-MSI`, `PCI-MSIX-0000:01:00.0` (6.2 on), `IO-APIC`; undefined for a label of the architecture. */
  readonly chip: string | undefined;
  /** The chip's own number of the interrupt: bus/device/function and vector for `PCI-MSI`, the vector for `PCI-MSIX-...`. */
  readonly hwirq: number | undefined;
  /** `edge`, `fasteoi`, `level`; undefined when the kernel prints none. */
  readonly flow: string | undefined;
  /** The names given to request_irq, in order. A name with `, ` in it comes as two. */
  readonly actions: readonly string[];
  /** All that stands after the counts, as printed. */
  readonly description: string;
}

export interface InterruptTable {
  /** The CPUs that were online, ascending. */
  readonly cpus: readonly number[];
  readonly lines: readonly InterruptLine[];
}

/** The text of /proc/interrupts. Lines of another form are left out. */
export function parseInterrupts(text: string): InterruptTable {
  const [header = '', ...rows] = text.split(/\r?\n/);
  const cpus = [...header.matchAll(/\bCPU(\d+)/g)].map(([, cpu]) => Number(cpu));
  return { cpus, lines: rows.map((row) => parseRow(row, cpus.length)).filter((line) => line !== undefined) };
}

function parseRow(row: string, cpuCount: number): InterruptLine | undefined {
  const match = /^\s*([A-Za-z0-9_]+):(.*)$/.exec(row);
  if (match === null) return undefined;
  const [, label = '', rest = ''] = match;
  const counts: number[] = [];
  let at = 0;
  const count = /\s*(\d+)(?=\s|$)/y;
  while (counts.length < cpuCount) {
    count.lastIndex = at;
    const found = count.exec(rest);
    if (found === null) break;
    counts.push(Number(found[1]));
    at = count.lastIndex;
  }
  const description = rest.slice(at).trim();
  const irq = /^\d+$/.test(label) ? Number(label) : undefined;
  const source = irq === undefined ? undefined : sourceOf(description);
  return {
    label,
    irq,
    counts,
    total: counts.reduce((sum, value) => sum + value, 0),
    chip: source?.chip,
    hwirq: source?.hwirq,
    flow: source?.flow,
    actions: source?.actions ?? [],
    description,
  };
}

/** `IO-APIC   2-edge      timer`, `PCI-MSI 32768-edge      PCIe PME, aerdrv`, `GICv3  27 Level     arch_timer`. */
function sourceOf(description: string): Pick<InterruptLine, 'chip' | 'hwirq' | 'flow' | 'actions'> {
  const match = /^(\S+)(?:\s+(\d+))?(?:-(\S+))?(?:\s+(Level|Edge)(?=\s|$))?(?:\s+(.*))?$/.exec(description);
  if (match === null) return { chip: undefined, hwirq: undefined, flow: undefined, actions: [] };
  const [, chip, hwirq, flow, sense, names] = match;
  return {
    chip,
    hwirq: hwirq === undefined ? undefined : Number(hwirq),
    flow: flow ?? sense?.toLowerCase(),
    actions: names === undefined ? [] : names.split(', '),
  };
}

/** The line of one Linux interrupt number. */
export function interruptOf(table: InterruptTable, irq: number): InterruptLine | undefined {
  return table.lines.find((line) => line.irq === irq);
}
