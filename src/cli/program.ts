// The command line: its commands, and from an argument vector to an exit code.
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { packageFile } from '../packages/index.ts';
import { addCache } from './cache.ts';
import { addDev } from './dev.ts';
import { addDoctor } from './doctor.ts';
import { errorText, EXIT_CODES_HELP, exitCodeOf } from './exit-codes.ts';
import { unlessInterrupted } from './interrupts.ts';
import { addLspci } from './lspci.ts';
import { addNew } from './new.ts';
import { addReport } from './report.ts';
import { addRun } from './run.ts';
import { addShell } from './shell.ts';

/** Commands put their exit code into `process.exitCode`; usage errors are thrown. */
export function program(): Command {
  const { version, description } = JSON.parse(readFileSync(packageFile('package.json'), 'utf8')) as { version: string; description: string };
  const root = new Command('rootport')
    .description(description)
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand('help [command]', 'print the help of a command')
    .showHelpAfterError('  hint: rootport --help, or rootport help <command>, tells what there is')
    .exitOverride()
    .addHelpText('after', `\n${EXIT_CODES_HELP}\nROOTPORT_DEBUG=1 adds stacks to errors.`);
  addRun(root);
  addDoctor(root);
  addReport(root);
  addShell(root);
  addLspci(root);
  addNew(root);
  addDev(root);
  addCache(root);
  return root;
}

/** Run the command line; the exit code. Errors are printed here, and only here. */
export async function main(args: readonly string[]): Promise<number> {
  try {
    await program().parseAsync([...args], { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    await unlessInterrupted();
    // Commander has printed its own.
    if (!(error instanceof CommanderError)) process.stderr.write(errorText(error));
    return exitCodeOf(error);
  }
}
