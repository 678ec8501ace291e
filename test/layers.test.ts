// The layers of src/: what each folder is, and which way it may lean. LAYERS is their documentation; the
// tests read the imports of every file and fail on one that leads down the table, and on circles of files.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { expect, test } from '@jest/globals';

const SRC = resolve(import.meta.dirname, '../src');

interface Layer {
  readonly name: string;
  readonly what: string;
  /** Folders above it that it is kept from all the same, and why. */
  readonly never?: Readonly<Record<string, string>>;
}

/** From the ground up: a layer imports only those before it. */
const LAYERS: readonly Layer[] = [
  { name: 'errors.ts', what: 'the whole error tree' },
  { name: 'wait.ts', what: 'a wait with a deadline that says what it waited for' },
  { name: 'shell-word.ts', what: 'a word quoted for a shell' },
  { name: 'recorder.ts', what: 'what happens on a machine, in lanes on one clock, bounded' },
  { name: 'bytes', what: 'field tables: decode, encode, size; hex dump' },
  { name: 'native', what: 'the addon: SCM_RIGHTS, mmap, eventfd, polling; meaning is elsewhere' },
  { name: 'pci', what: 'config space, BARs, capabilities, MSI-X, over PciAccess', never: { native: 'it is pure' } },
  { name: 'virtio', what: 'features, virtqueues, gates, over GuestMemory', never: { native: 'rings are tested without QEMU', pci: 'a ring knows no bus' } },
  { name: 'qmp', what: 'QEMU\'s monitor: messages, client, events' },
  { name: 'qtest', what: 'ports, memory and interrupt lines of a machine without an operating system; PciAccess over them', never: { native: 'it takes any byte stream' } },
  { name: 'vhost-user', what: 'the protocol\'s back end: messages, sessions, memory map' },
  { name: 'vfio-user', what: 'the protocol\'s server: a whole PCI function' },
  { name: 'ivshmem', what: 'the doorbell server' },
  { name: 'packages', what: 'Debian packages as rootless trees in a cache, progress, locks' },
  { name: 'image', what: 'kernels, initramfs and kernel-module builds out of those trees' },
  { name: 'qemu', what: 'which QEMU, which accelerator, its command line, process, console, leash' },
  { name: 'guest', what: 'SSH, /proc and sysfs readers, kernel-log parser, the probe\'s client', never: { qemu: 'a guest is reached over SSH, whatever runs it' } },
  { name: 'devices', what: 'what can be plugged, one folder each', never: { guest: 'a device sees its own side of the bus only' } },
  { name: 'machine', what: 'boot, plug, unplug, what each witness says; owns lifetimes', never: { devices: 'a device hands over an attachment; the machine knows none by name' } },
  { name: 'report', what: 'tables of witnesses, outcomes of a run; pure', never: { machine: 'it renders what it is given' } },
  { name: 'jest', what: 'useMachine, matchers (one file each), the preset\'s parts', never: { devices: 'matchers judge any device' } },
  { name: 'cli', what: 'one file a command' },
  { name: 'index.ts', what: 'the public API: re-exports only' },
];

/** Type-only imports that may lead down: a contract stands with the one who needs it. */
const CONTRACTS: ReadonlySet<string> = new Set(['qemu/attachment.ts']);

interface Import {
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
}

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts')).sort();
const imports = files.flatMap((file) => importsOf(file, readFileSync(join(SRC, file), 'utf8')));

/** Relative imports of a file. `import { type A }` is no type-only one: the module is loaded for it. */
function importsOf(file: string, text: string): Import[] {
  const found: Import[] = [];
  const add = (path: string | undefined, typeOnly: boolean): void => {
    if (path?.startsWith('.')) found.push({ from: file, to: relative(SRC, resolve(SRC, dirname(file), path)), typeOnly });
  };
  for (const [, type, path] of text.matchAll(/^(?:import|export)(\s+type)?\s+(?:[\w*{][^;'"]*?\s)?from\s+'([^']+)'/gm)) add(path, type !== undefined);
  for (const [, path] of text.matchAll(/^import\s+'([^']+)'/gm)) add(path, false);
  for (const [, path] of text.matchAll(/\bimport\('([^']+)'\)/g)) add(path, false);
  return found;
}

const layerOf = (file: string): string => file.split('/')[0] ?? '';
const heightOf = (layer: string): number => LAYERS.findIndex(({ name }) => name === layer);

function complaint({ from, to, typeOnly }: Import): string | undefined {
  const [mine, other] = [layerOf(from), layerOf(to)];
  if (mine === other || (typeOnly && CONTRACTS.has(to))) return undefined;
  if (heightOf(other) > heightOf(mine)) return `${from} imports ${to}: ${other} stands below ${mine}`;
  const why = LAYERS[heightOf(mine)]?.never?.[other];
  return why === undefined ? undefined : `${from} imports ${to}: never, ${why}`;
}

/** Files that lead back to themselves, as one path each. */
function circles(edges: readonly Import[]): string[] {
  const next = new Map<string, string[]>();
  for (const { from, to, typeOnly } of edges) if (!typeOnly) next.set(from, [...next.get(from) ?? [], to]);
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (file: string, path: readonly string[]): void => {
    const at = path.indexOf(file);
    if (at >= 0) return void found.push([...path.slice(at), file].join(' -> '));
    if (done.has(file)) return;
    for (const one of next.get(file) ?? []) visit(one, [...path, file]);
    done.add(file);
  };
  for (const file of next.keys()) visit(file, []);
  return found;
}

test('every folder of src/ is a layer, and every layer is there', () => {
  expect([...new Set(files.map(layerOf))].sort()).toEqual(LAYERS.map(({ name }) => name).sort());
});

test('every relative import names a file of src/', () => {
  expect(imports.length).toBeGreaterThan(200);
  expect(imports.filter(({ to }) => !files.includes(to))).toEqual([]);
});

test('no file imports from a layer below its own, or from one it is kept from', () => {
  expect(imports.map(complaint).filter((one) => one !== undefined)).toEqual([]);
});

test('no files import each other in a circle, types aside', () => {
  expect(circles(imports)).toEqual([]);
});

test('an import that leads down, one that is forbidden and a circle are each told', () => {
  const text = 'import type { A } from \'../machine/a.ts\';\nexport {\n  b,\n  type C,\n} from \'../pci/b.ts\';\nimport \'./c.ts\';\nawait import(\'../cli/d.ts\');\n';
  const read = importsOf('pci/x.ts', text);
  expect(read.map(({ to, typeOnly }) => [to, typeOnly])).toEqual([['machine/a.ts', true], ['pci/b.ts', false], ['pci/c.ts', false], ['cli/d.ts', false]]);
  expect(read.map(complaint)).toEqual([expect.stringContaining('machine stands below pci'), undefined, undefined, expect.stringContaining('cli stands below pci')]);
  expect(complaint({ from: 'machine/a.ts', to: 'devices/edu/index.ts', typeOnly: true })).toMatch(/never, a device hands over/);
  expect(circles([
    { from: 'a', to: 'b', typeOnly: false }, { from: 'b', to: 'c', typeOnly: false }, { from: 'c', to: 'a', typeOnly: false }, { from: 'c', to: 'b', typeOnly: true },
  ])).toEqual(['a -> b -> c -> a']);
});
