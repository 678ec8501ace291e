// The drawing that a failed toHaveDelivered leaves: a file in rootport-report/ where Jest was started. It must not
// hide the failure: what goes wrong here is told in its place.
import { mkdir, writeFile } from 'node:fs/promises';
import { relative, resolve } from 'node:path';
import { RootportError } from '../../errors.ts';
import type { InterruptTimeline } from '../../machine/interrupt-timeline.ts';
import { renderTimeline } from '../../report/ledger-timeline.ts';
import { currentTest } from '../current-test.ts';

const DIRECTORY = 'rootport-report';
const NAME_MAX = 100;
let drawn = 0;

/** Draw what happened, once it is read, and say where: a line for the failure's message. */
export async function writeTimeline(
  fn: { readonly bdf: string }, name: string, read: () => Promise<InterruptTimeline>, wrong: ReadonlyMap<number, readonly string[]>,
): Promise<string> {
  const test = currentTest()?.name ?? 'a test';
  try {
    const svg = renderTimeline({ ...await read(), title: `${test}: ${name}`, wrong });
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
