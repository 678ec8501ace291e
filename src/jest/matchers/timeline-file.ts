// The drawing that a failed toHaveDelivered leaves: a file in rootport-report/ where Jest was started. It must not
// hide the failure: what goes wrong here is told in its place.
import { mkdir, writeFile } from 'node:fs/promises';
import { relative, resolve } from 'node:path';
import { RootportError } from '../../errors.ts';
import type { InterruptMark } from '../../machine/interrupt-ledger.ts';
import type { StretchEvents } from '../../machine/interrupt-stretch.ts';
import { readTimeline } from '../../machine/interrupt-timeline.ts';
import type { PciFunction } from '../../machine/pci-function.ts';
import { renderTimeline } from '../../report/ledger-timeline.ts';
import { currentTest } from '../current-test.ts';
import { nameOf } from './format.ts';

const DIRECTORY = 'rootport-report';
const NAME_MAX = 100;
let drawn = 0;

/** Draw what happened, and say where: a line for the failure's message. */
export async function writeTimeline(
  fn: PciFunction, since: InterruptMark | undefined, events: StretchEvents, wrong: ReadonlyMap<number, readonly string[]>,
): Promise<string> {
  const test = currentTest()?.name ?? 'a test';
  try {
    const timeline = await readTimeline(fn, since, events);
    const svg = renderTimeline({ ...timeline, title: `${test}: ${nameOf(fn)}`, wrong });
    const slug = test.replace(/[^A-Za-z0-9]+/g, '-').replace(/^-|-$/g, '').slice(0, NAME_MAX);
    const path = resolve(DIRECTORY, `ledger-${slug}-${fn.bdf.replaceAll(':', '-')}-${process.pid}-${drawn += 1}.svg`);
    await mkdir(DIRECTORY, { recursive: true });
    await writeFile(path, svg);
    return `drawn in time: ${relative(process.cwd(), path)}`;
  } catch (error) {
    // A guest that no longer answers, a directory that cannot be written.
    if (!(error instanceof RootportError) && !(error instanceof Error && 'code' in error)) throw error;
    return `not drawn in time: ${error.message.split('\n')[0] ?? ''}`;
  }
}
