// The module that goes wrong on request (crash/), loaded before any test, and what the harness made of a report by it.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Guest, KernelReport, Machine } from 'rootport';
import type { TestMachine } from 'rootport/jest';

export const MODULE = fileURLToPath(new URL('crash', import.meta.url));
const source = readFileSync(`${MODULE}/crash.c`, 'utf8').split('\n');

/** Where its source has that mark. */
export const lineOf = (mark: string): number => source.findIndex((line) => line.includes(`/* line: ${mark} */`)) + 1;

export const warm = async (guest: Guest, machine: Machine): Promise<void> => guest.loadModule(await machine.buildModule(MODULE));

export async function goWrongIn(vm: TestMachine, kind: string): Promise<void> {
  await vm.guest.run(`echo ${kind} >/sys/module/crash/parameters/go`);
}

/** Kind, guilty function, and where it stands. */
export async function toldBy(vm: TestMachine, report: KernelReport): Promise<unknown> {
  if (report.guilty === undefined) throw new Error(`no guilty frame in:\n${report.lines.join('\n')}`);
  const [frame] = await vm.guest.symbolise([report.guilty]);
  const place = frame?.place;
  return { kind: report.kind, guilty: report.guilty.function, module: report.module, at: place === undefined ? frame?.unknown : `${place.file}:${place.line}` };
}
