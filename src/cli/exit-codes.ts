// What the command line's exit codes mean, and how an error becomes one and a text.
import { CommanderError } from 'commander';
import { EnvironmentError, RootportError, UsageError } from '../errors.ts';

export const EXIT = {
  passed: 0,
  /** A suite failed, a command in the guest did, or a machine broke. */
  failed: 1,
  /** The caller's to fix: an option, a name. */
  usage: 2,
  /** The host lacks something; `rootport doctor` tells. */
  environment: 3,
  /** SIGINT, SIGTERM or SIGHUP. */
  interrupted: 130,
} as const;

export const EXIT_CODES_HELP =
  'Exit codes: 0 passed, 1 failed, 2 wrong usage, 3 the host lacks something (see rootport\n' +
  'doctor), 130 interrupted.';

export function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.passed : EXIT.usage;
  if (error instanceof UsageError) return EXIT.usage;
  if (error instanceof EnvironmentError) return EXIT.environment;
  return EXIT.failed;
}

/** `error: ...`, its hint and its machine; with ROOTPORT_DEBUG set, the stack and the causes too. */
export function errorText(error: unknown, env: NodeJS.ProcessEnv = process.env): string {
  if (!(error instanceof Error)) return `error: ${String(error)}\n`;
  const known = error instanceof RootportError;
  if (env['ROOTPORT_DEBUG']) return `error: ${withCauses(error)}\n`;
  const hint = known ? '' : '\n  hint: this is not an error that rootport expects; ROOTPORT_DEBUG=1 shows where it comes from';
  return `error: ${error.message}${hint}\n`;
}

function withCauses(error: Error): string {
  const cause = error.cause instanceof Error ? `\ncaused by: ${withCauses(error.cause)}` : '';
  return `${error.stack ?? error.message}${cause}`;
}
