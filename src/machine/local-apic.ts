// What the guest's CPUs have not taken yet, as QEMU's local APICs show it (HMP `info lapic`: target/i386/cpu-apic.c,
// IRR and ISR; Intel SDM 3, 11.8.4). Under TCG a message that was delivered waits there while its CPU has no turn.
import type { Machine } from './machine.ts';

/** Vectors (of the CPUs' own numbering, as in a message's data) that wait for their CPUs or are just being taken. */
export async function vectorsAtCpus({ qmp, innards: { shape } }: Pick<Machine, 'qmp' | 'innards'>): Promise<Set<number>> {
  const vectors = new Set<number>();
  for (let cpu = 0; cpu < shape.cpus; cpu += 1) for (const vector of parseLocalApic(await qmp.hmp(`info lapic ${cpu}`))) vectors.add(vector);
  return vectors;
}

/** The vectors of its lines `ISR` and `IRR`: `IRR\t 236 35(level)`, `ISR\t (none)`. Empty for a CPU that is not there. */
export function parseLocalApic(text: string): number[] {
  return [...text.matchAll(/^I[SR]R\s(.*)$/gm)].flatMap(([, list = '']) => [...list.matchAll(/\b\d+/g)].map(Number));
}
