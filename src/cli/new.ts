// `rootport new`: a driver's project: a module, its suite, and a CI that passes as generated.
// Its files are templates/driver, with NAME, IDENT and VERSION put in; nothing is installed, nothing overwritten.
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve } from 'node:path';
import type { Command } from 'commander';
import { UsageError } from '../errors.ts';
import { packageFile } from '../packages/index.ts';
import { EXIT_CODES_HELP } from './exit-codes.ts';

export function addNew(program: Command): void {
  program.command('new')
    .description('make a driver\'s project: a kernel module, its suite, CI')
    .argument('<name>', 'of the project and its module; its directory is made here')
    .addHelpText('after', [
      '', 'The driver is of QEMU\'s educational device, and its suite passes: npm install && npm test.', EXIT_CODES_HELP, '', 'Example:', '  rootport new my-driver', '',
    ].join('\n'))
    .action(async (path: string) => {
      const files = await makeProject(path);
      process.stdout.write(`${files.map((file) => `  ${file}\n`).join('')}made ${path}: cd ${path} && npm install && npm test\n`);
    });
}

/** A name that npm takes, and that is a module's with `-` as `_` (the kernel's own rule). */
const NAME = /^[a-z][a-z0-9]*([-_][a-z0-9]+)*$/;
const NAME_LENGTH_MAX = 40;

/**
 * The project in the directory `path`, which must not be there, or be empty.
 * @returns its files, relative to it
 * @throws UsageError for a name that is none, and a directory with something in it
 */
export async function makeProject(path: string): Promise<string[]> {
  const directory = resolve(path);
  const name = basename(directory);
  if (!NAME.test(name) || name.length > NAME_LENGTH_MAX || name === 'rootport') {
    throw new UsageError(`${JSON.stringify(name)} is no name for a driver`, { hint: 'small letters, digits, - and _, from a letter on, such as my-driver' });
  }
  if (existsSync(directory) && (await readdir(directory)).length > 0) {
    throw new UsageError(`${directory} is there already, with something in it`, { hint: 'give another name, or remove it' });
  }
  const { version } = JSON.parse(readFileSync(packageFile('package.json'), 'utf8')) as { version: string };
  const words: Readonly<Record<string, string>> = { NAME: name, IDENT: name.replaceAll('-', '_'), VERSION: version };
  const filled = (text: string): string => text.replace(/\bNAME\b|IDENT|\bVERSION\b/g, (word) => words[word] ?? word);
  const template = packageFile('templates/driver');
  const made: string[] = [];
  for (const entry of await readdir(template, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const source = join(entry.parentPath, entry.name);
    // npm leaves some dot files out of a package.
    const file = filled(relative(template, source)).replace(/^dot-/, '.');
    await mkdir(dirname(join(directory, file)), { recursive: true });
    await writeFile(join(directory, file), filled(await readFile(source, 'utf8')));
    made.push(file);
  }
  return made.sort();
}
