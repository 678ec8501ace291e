// `rootport doctor`: each thing that rootport needs, found or not, with the command that mends it.
import type { Command } from 'commander';
import { EnvironmentError } from '../errors.ts';
import { addMachineOptions, bootOptions, type MachineOptions } from './machine-options.ts';
import { cacheChecks, packageChecks } from './doctor-cache.ts';
import { hostChecks } from './doctor-host.ts';
import { machineChecks, machinePlan } from './doctor-machine.ts';
import { table } from './doctor-check.ts';
import { EXIT, EXIT_CODES_HELP } from './exit-codes.ts';
import { checkChoices, prepare } from './preparation.ts';

interface DoctorOptions extends MachineOptions {
  readonly json?: boolean;
  readonly prepare?: boolean;
}

export function addDoctor(program: Command): void {
  addMachineOptions(program.command('doctor'))
    .description('what rootport needs, found or not, and the command that mends it')
    .option('--prepare', 'fill the cache first, so that KVM can be proven')
    .option('--json', 'as JSON: { ok, checks: [{ name, state, detail, mend }] }')
    .addHelpText('after', `\nIt exits with 3 when something needed is missing.\n${EXIT_CODES_HELP}\n\nExamples:\n  rootport doctor --prepare\n  rootport doctor --json | jq -r '.checks[] | select(.state == "missing") | .mend'`)
    .action(async (options: DoctorOptions) => {
      process.exitCode = await doctor(options);
    });
}

async function doctor(options: DoctorOptions): Promise<number> {
  const boot = bootOptions(options);
  await checkChoices(boot).catch((error: unknown) => {
    if (!(error instanceof EnvironmentError)) throw error; // that one is a check of its own below
  });
  if (options.prepare === true) await prepare(boot);
  const plan = await machinePlan(boot);
  const checks = [
    ...await hostChecks(),
    ...await packageChecks(plan.uncached),
    ...await cacheChecks(plan.uncached),
    ...await machineChecks(plan, boot),
  ];
  const ok = checks.every(({ state }) => state !== 'missing');
  process.stdout.write(options.json === true ? `${JSON.stringify({ ok, checks }, undefined, 2)}\n` : table(checks, process.stdout.isTTY));
  return ok ? EXIT.passed : EXIT.environment;
}
