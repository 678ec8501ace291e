// `rootport cache`: what is in the cache, filling it, emptying it, and where it is.
import type { Command } from 'commander';
import { UsageError } from '../errors.ts';
import { cacheRoot, formatBytes, removeEntry, sizedEntries, terminalProgress, type SizedEntry } from '../packages/index.ts';
import { addMachineOptions, bootOptions, type MachineOptions } from './machine-options.ts';
import { machineLine, prepare } from './preparation.ts';

/** Folders of the cache, and what is in them. */
const KINDS: Record<string, string> = {
  trees: 'package trees (QEMU, kernels, userland): downloaded',
  kernels: 'kernels made ready to boot, and their headers',
  images: 'guest images',
  modules: 'kernel modules that were built',
  kvm: 'verdicts on KVM',
  snapshots: 'booted machines, to be restored',
  partial: 'what was cut short',
};

export function addCache(program: Command): void {
  const cache = program.command('cache').description('what rootport keeps on disk: list, prepare, clean, path');
  cache.addHelpText('after', `\nThe cache is ${cacheRoot()} ($ROOTPORT_CACHE, else under $XDG_CACHE_HOME).\n\nExample:\n  rootport cache prepare && rootport cache list`);

  cache.command('list', { isDefault: true })
    .description('entries with their sizes and dates')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  rootport cache list --json | jq -r .entries[].path')
    .action(async ({ json }: { json?: boolean }) => {
      const entries = await sizedEntries();
      process.stdout.write(json === true ? `${JSON.stringify({ path: cacheRoot(), entries }, undefined, 2)}\n` : listing(entries));
    });

  addMachineOptions(cache.command('prepare'))
    .description('download and build everything that `rootport run` needs')
    .addHelpText('after', '\nExample:\n  rootport cache prepare --qemu 7.2 --kernel 6.12')
    .action(async (options: MachineOptions) => {
      const { parts, wasReady } = await prepare(bootOptions(options));
      process.stdout.write(`${machineLine(parts)}\n${wasReady ? 'everything was in the cache already: nothing was downloaded' : 'the cache is ready'}: ${cacheRoot()}\n`);
    });

  cache.command('clean')
    .description('remove entries, all of them or these kinds, without asking')
    .argument('[kinds...]', Object.keys(KINDS).join(', '))
    .option('--all', 'every kind (the default)')
    .addHelpText('after', `\nKinds:\n${Object.entries(KINDS).map(([kind, what]) => `  ${kind.padEnd(8)} ${what}`).join('\n')}\n\nExample:\n  rootport cache clean images modules`)
    .action(async (kinds: string[], { all }: { all?: boolean }) => clean(all === true ? [] : kinds));

  cache.command('path')
    .description('print where it is')
    .addHelpText('after', '\nExample:\n  du -sh "$(rootport cache path)"')
    .action(() => void process.stdout.write(`${cacheRoot()}\n`));
}

function listing(entries: readonly SizedEntry[]): string {
  if (entries.length === 0) return `${cacheRoot()} is empty\n`;
  const width = Math.max(...entries.map(({ kind, key }) => kind.length + key.length + 1));
  const rows = entries.map(({ kind, key, sizeBytes, madeAt, complete }) =>
    `${`${kind}/${key}`.padEnd(width)}  ${formatBytes(sizeBytes).padStart(7)}  ${madeAt.toISOString().slice(0, 16).replace('T', ' ')}${complete ? '' : '  cut short, or being made'}`);
  const total = entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return `${rows.join('\n')}\n${formatBytes(total)} in ${cacheRoot()}\n`;
}

async function clean(kinds: readonly string[]): Promise<void> {
  const unknown = kinds.filter((kind) => !(kind in KINDS));
  if (unknown.length > 0) throw new UsageError(`the cache has no kind named ${unknown.join(', ')}`, { hint: `the kinds are ${Object.keys(KINDS).join(', ')}` });
  const entries = (await sizedEntries()).filter(({ kind }) => kinds.length === 0 ? kind in KINDS : kinds.includes(kind));
  const progress = terminalProgress();
  let freed = 0;
  if (entries.length > 0) progress.start(`removing ${entries.length} entries`);
  for (const [index, entry] of entries.entries()) {
    await removeEntry(entry, progress);
    freed += entry.sizeBytes;
    progress.update((index + 1) / entries.length, `${entry.kind}/${entry.key}`);
  }
  if (entries.length > 0) progress.succeed(`removed ${entries.length} entries`);
  process.stdout.write(`${formatBytes(freed)} freed (${freed} bytes)\n`);
}
