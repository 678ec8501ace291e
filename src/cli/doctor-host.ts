// The doctor's look at the host: Node, tools, the native addon.
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { execa } from 'execa';
import { closeFd, createEventfd } from '../native/index.ts';
import type { Check } from './doctor-check.ts';

const NODE_LEAST = [20, 19] as const;

interface Tool {
  readonly program: string;
  readonly for: string;
  readonly install: string;
}

const TOOLS: readonly Tool[] = [
  { program: 'gcc', for: 'builds kernel modules and the native addon', install: 'apt-get install gcc libc6-dev' },
  { program: 'make', for: 'builds kernel modules and the native addon', install: 'apt-get install make' },
  { program: 'strip', for: 'strips kernel modules', install: 'apt-get install binutils' },
  { program: 'setpriv', for: 'QEMU dies with its test', install: 'apt-get install util-linux' },
  { program: 'flock', for: 'parallel runs share the cache', install: 'apt-get install util-linux' },
  { program: 'tar', for: 'lays out packages', install: 'apt-get install tar' },
];

export async function hostChecks(): Promise<Check[]> {
  const addon = addonCheck();
  return [
    nodeCheck(process.versions.node),
    ...await Promise.all(TOOLS.map(toolCheck)),
    pythonCheck(addon.state === 'ok'),
    addon,
  ];
}

export function nodeCheck(version: string): Check {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const enough = major > NODE_LEAST[0] || (major === NODE_LEAST[0] && minor >= NODE_LEAST[1]);
  return {
    name: 'Node.js', state: enough ? 'ok' : 'missing', detail: `v${version}`,
    ...(enough ? {} : { mend: `install Node.js ${NODE_LEAST.join('.')} or newer` }),
  };
}

async function toolCheck({ program, for: what, install }: Tool): Promise<Check> {
  const path = findProgram(program);
  if (path === undefined) return { name: program, state: 'missing', detail: `not on the PATH (${what})`, mend: install };
  const { stdout = '', failed } = await execa(path, ['--version'], { reject: false });
  if (failed) return { name: program, state: 'missing', detail: `${path} --version fails (${what})`, mend: install };
  return { name: program, state: 'ok', detail: `${path}: ${stdout.split('\n')[0] ?? ''}` };
}

/** Only node-gyp runs it. */
function pythonCheck(addonIsBuilt: boolean): Check {
  const path = findProgram('python3');
  if (path !== undefined) return { name: 'python3', state: 'ok', detail: path };
  return addonIsBuilt
    ? { name: 'python3', state: 'note', detail: 'not on the PATH: only to build the native addon, and that is built' }
    : { name: 'python3', state: 'missing', detail: 'not on the PATH (builds the native addon)', mend: 'apt-get install python3' };
}

/** Proven by using it. */
function addonCheck(): Check {
  try {
    closeFd(createEventfd());
    return { name: 'native addon', state: 'ok', detail: 'built, loads and works' };
  } catch (error) {
    return {
      name: 'native addon', state: 'missing', detail: (error as Error).message.split('\n')[0] ?? '',
      mend: 'npm rebuild rootport (in rootport itself: node src/native/install.mjs)',
    };
  }
}

/** The path of a program that can be run, or undefined. */
export function findProgram(program: string): string | undefined {
  return (process.env['PATH'] ?? '').split(delimiter).filter((directory) => directory !== '')
    .map((directory) => join(directory, program)).find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}
