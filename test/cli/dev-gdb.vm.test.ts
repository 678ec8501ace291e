// `rootport dev --gdb`: the line that it prints, followed by a debugger of the test's own: the module's code is where the
// line says, its probe() and its interrupt handler can be stopped in, and a save ends it.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { execa } from 'execa';
import { DevLoop } from '../../src/cli/dev-loop.ts';
import { functionSymbols } from '../../src/guest/symbolise.ts';
import { edu } from '../../src/index.ts';
import { within } from '../../src/wait.ts';
import { GdbRemote } from '../machine/gdb-remote.ts';
import { generatedProject, type GeneratedProject } from './generated-project.ts';

let project: GeneratedProject;
let loop: DevLoop;
let told = '';
let wake = (): void => {};

const take = (text: string): void => { told += text; wake(); };
/** What was told, once it matches. */
function heard(pattern: RegExp): Promise<RegExpExecArray> {
  return within((async () => {
    for (;;) {
      const match = pattern.exec(told);
      if (match !== null) return match;
      await new Promise<void>((resolve) => { wake = resolve; });
    }
  })(), { timeoutMs: 60_000, what: String(pattern) });
}

beforeAll(async () => {
  project = await generatedProject('desk');
  const device = '/sys/bus/pci/devices/0000:01:00.0';
  loop = await DevLoop.open({
    directory: join(project.directory, 'desk'), devices: () => [edu()], boot: {},
    run: `echo 5 >${device}/factorial; cat ${device}/factorial`, gdb: { line: (command) => take(`${command}\n`), said: take },
  });
}, 200_000);
afterAll(async () => {
  await loop?.close();
  await project?.remove();
});

/** Offsets of a section's bytes that the kernel writes when it loads a module: relocations, and what it patches around them. */
async function patched(file: string): Promise<Set<number>> {
  const { stdout } = await execa('readelf', ['-rW', file]);
  const table = /Relocation section '\.rela\.text'[^]*?(?=\n\n|$)/.exec(stdout)?.[0] ?? '';
  return new Set([...table.matchAll(/^([0-9a-f]{12,16}) /gm)].flatMap(([, offset = '']) => Array.from({ length: 10 }, (_, i) => Number.parseInt(offset, 16) - 2 + i)));
}

test('gdb finds the module where the line says, stops in probe() and in the handler, and a save ends the guest', async () => {
  const cancel = new AbortController();
  const round = loop.round(cancel.signal);
  round.catch(() => undefined);
  const [line] = await heard(/^gdb .*\n/m);
  const socket = /target remote (\S+)'/.exec(line)?.[1] ?? '';
  const [, file = '', address = ''] = /add-symbol-file (\S+desk\.ko) (0x[0-9a-f]+) -s \.data 0x[0-9a-f]+ /.exec(line) ?? [];
  const text = BigInt(address);

  const gdb = await GdbRemote.connect(socket);
  const copy = join(project.directory, 'text');
  await execa('objcopy', ['-O', 'binary', '--only-section=.text', file, copy]);
  const own = await readFile(copy), loaded = await gdb.read(text, own.length), not = await patched(file);
  const compared = [...own.keys()].filter((offset) => !not.has(offset));
  expect(compared.length).toBeGreaterThan(own.length / 3);
  expect(compared.filter((offset) => own[offset] !== loaded[offset])).toEqual([]);

  const functions = functionSymbols(await readFile(file));
  const at = (name: string): bigint => text + BigInt(functions.find((one) => one.name === name && one.section === '.text')?.value ?? -1);
  const inProbe = await gdb.breakpoint('hardware', at('desk_probe'));
  const inHandler = await gdb.breakpoint('software', at('desk_irq'));
  gdb.run();
  expect(await gdb.stopped()).toBe(5); // SIGTRAP
  expect(await gdb.rip()).toBe(at('desk_probe'));
  expect(told).not.toContain('desk 0000:01:00.0: edu');
  await inProbe.remove();
  gdb.run();
  expect(await gdb.stopped()).toBe(5);
  expect(await gdb.rip()).toBe(at('desk_irq'));
  expect(told).toContain('desk 0000:01:00.0: edu 010000ed');
  await inHandler.remove();
  gdb.run();
  await heard(/^120\n/m);
  await gdb.detach();

  cancel.abort();
  expect(await round).toBeUndefined();
}, 200_000);
