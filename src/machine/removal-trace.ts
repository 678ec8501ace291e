// The guest's own word on a driver's remove(): kprobes on entry to and return from pci_device_remove,
// which calls it (Linux: drivers/pci/pci-driver.c). Works for every driver, without touching any.
import { randomBytes } from 'node:crypto';
import { GuestCommandError } from '../errors.ts';
import type { GuestShell } from '../guest/kept-shell.ts';

const TRACING = '/sys/kernel/tracing';
// struct device begins with its kobject, and that with its name: the BDF.
const SETUP = [
  `[ -e ${TRACING}/kprobe_events ] || mount -t tracefs tracefs ${TRACING}`,
  `[ -e ${TRACING}/events/rootport ] || {`,
  `echo 'p:rootport/remove_begin pci_device_remove bdf=+0(+0(%di)):string' >${TRACING}/kprobe_events &&`,
  `echo 'r:rootport/remove_end pci_device_remove' >>${TRACING}/kprobe_events &&`,
  `echo 1 >${TRACING}/events/rootport/enable; }`,
].join('\n');

/** `  kworker/0:1-14  [000] .....  5.1: remove_begin: (pci_device_remove+0x0/0xb0) bdf="0000:01:00.0"` */
const LINE = /^.*-(\d+) +(?:\([^)]*\) +)?\[\d+\].*? remove_(begin|end): (.*)$/;

export interface Removal {
  readonly bdf: string;
  /** False: pci_device_remove was entered and has not returned. */
  readonly returned: boolean;
}

/** Arm the probes, once a guest. False where the kernel has none (CONFIG_KPROBE_EVENTS): no witness. */
export async function armRemovalTrace(shell: GuestShell): Promise<boolean> {
  try {
    await shell.run(SETUP);
    return true;
  } catch (error) {
    if (error instanceof GuestCommandError) return false;
    throw error;
  }
}

/** A word of one's own in the trace: what comes after it is `since`. */
export async function markTrace(shell: GuestShell): Promise<string> {
  const mark = `rootport-${randomBytes(6).toString('hex')}`;
  await shell.run(`echo ${mark} >${TRACING}/trace_marker`);
  return mark;
}

/** The removals since a mark (or since the probes were armed, where the buffer has lost it), in order. */
export async function readRemovals(shell: GuestShell, since: string): Promise<Removal[]> {
  const { stdout: all } = await shell.run(`grep 'remove_[be]\\|${since}' ${TRACING}/trace || :`);
  const stdout = all.slice(Math.max(0, all.indexOf(since)));
  const removals: (Removal & { readonly task: string })[] = [];
  for (const line of stdout.split('\n')) {
    const [, task, kind, rest = ''] = LINE.exec(line) ?? [];
    if (task === undefined) continue;
    if (kind === 'begin') removals.push({ bdf: /bdf="([^"]+)"/.exec(rest)?.[1] ?? '', returned: false, task });
    // Several devices are removed at once, each by a task of its own; within one a bridge's ends after what is behind it.
    const open = kind === 'end' ? removals.findLastIndex((one) => one.task === task && !one.returned) : -1;
    const at = removals[open];
    if (at !== undefined) removals[open] = { ...at, returned: true };
  }
  return removals.map(({ bdf, returned }) => ({ bdf, returned }));
}

/** A shell condition that holds once pci_device_remove was entered for the function after a mark. */
export function removalBegan(bdf: string, since: string): string {
  return `sed '1,/${since}/d' ${TRACING}/trace | grep -q 'remove_begin: .*bdf="${bdf}"'`;
}
