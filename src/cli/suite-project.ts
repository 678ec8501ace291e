// Whose suites `rootport run` runs, and with which Jest: those of the project around the working
// directory, when its own Jest configuration takes the preset; else the suites of this package.
// Source: Jest docs, "Configuring Jest" (where a configuration may stand), "Presets".
import { createRequire } from 'node:module';
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { UsageError } from '../errors.ts';
import { packageFile } from '../packages/index.ts';

export interface SuiteProject {
  readonly root: string;
  /** Arguments that give Jest its configuration; none where Jest finds it by itself. */
  readonly configArgs: readonly string[];
  /** The Jest to run: jest/bin/jest.js. */
  readonly jest: string;
  readonly isOwnPackage: boolean;
}

interface InitialOptions {
  readonly preset?: string | null;
  readonly projects?: readonly (string | InitialOptions)[];
}
interface JestConfig {
  readInitialOptions(config: undefined, options: { packageRootOrConfig: string; skipMultipleConfigError: boolean }):
    Promise<{ config: InitialOptions }>;
}

const CONFIGS = ['js', 'ts', 'mjs', 'mts', 'cjs', 'cts', 'json'].map((extension) => `jest.config.${extension}`);

export async function findProject(directory: string): Promise<SuiteProject> {
  const own: SuiteProject = {
    root: resolve(packageFile('.')),
    configArgs: ['--config', packageFile('jest.config.js')],
    jest: jestOf(packageFile('package.json')) ?? '',
    isOwnPackage: true,
  };
  const root = packageAround(directory);
  if (root === undefined || root === own.root) return own;
  const jest = jestOf(join(root, 'package.json')) ?? own.jest;
  return await takesPreset(root, jest) ? { root, configArgs: [], jest, isOwnPackage: false } : own;
}

/** The nearest directory with a package.json. */
function packageAround(directory: string): string | undefined {
  for (let at = resolve(directory); ; at = dirname(at)) {
    if (existsSync(join(at, 'package.json'))) return at;
    if (at === dirname(at)) return undefined;
  }
}

function jestOf(manifest: string): string | undefined {
  try {
    return join(dirname(createRequire(manifest).resolve('jest/package.json')), 'bin/jest.js');
  } catch {
    return undefined;
  }
}

/** Read as Jest reads it: JSON, JavaScript or TypeScript. */
async function takesPreset(root: string, jest: string): Promise<boolean> {
  const hasFile = CONFIGS.some((name) => existsSync(join(root, name)));
  const manifest = createRequire(import.meta.url)(join(root, 'package.json')) as { jest?: unknown };
  if (!hasFile && manifest.jest === undefined) return false;
  const fromCli = createRequire(createRequire(jest).resolve('jest-cli'));
  const { readInitialOptions } = fromCli('jest-config') as JestConfig;
  try {
    const { config } = await readInitialOptions(undefined, { packageRootOrConfig: root, skipMultipleConfigError: true });
    return [config, ...(config.projects ?? []).filter((one) => typeof one !== 'string')].some(({ preset }) => isOurs(preset, root));
  } catch (cause) {
    throw new UsageError(`the Jest configuration of ${root} cannot be read: ${(cause as Error).message}`, { cause });
  }
}

/** `rootport`, or a path that leads to this package. */
function isOurs(preset: string | null | undefined, root: string): boolean {
  if (preset == null) return false;
  if (preset === 'rootport') return true;
  const ours = packageFile('jest-preset.cjs');
  return [resolve(root, preset), resolve(root, preset, 'jest-preset.cjs')].includes(ours);
}
