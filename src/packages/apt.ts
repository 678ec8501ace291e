// An apt of our own beside the host's: own state, lists, cache and an empty dpkg status, so that it
// resolves and downloads whole closures of any Debian suite without root and without touching the host.
// Release files and packages are verified by apt itself against the host's Debian keyring.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { EnvironmentError, UsageError } from '../errors.ts';
import { hostMirror } from './mirror.ts';
import type { Progress } from './progress.ts';

export interface Suite {
  /** A codename: bookworm, trixie. */
  readonly name: string;
  /** Take the packages from the suite's backports. */
  readonly backports: boolean;
}

export class Apt {
  private constructor(private readonly config: string, private readonly suite: Suite) {}

  /** Set up in `directory` and fetch the suite's package lists. */
  static async open(directory: string, suite: Suite, progress: Progress): Promise<Apt> {
    const mirror = await hostMirror();
    for (const name of ['state/lists/partial', 'cache/archives/partial', 'parts']) {
      await mkdir(join(directory, name), { recursive: true });
    }
    const signed = mirror.keyring === undefined ? '' : ` signed-by=${mirror.keyring}`;
    const source = (uri: string, name: string): string => `deb [arch=amd64${signed}] ${uri} ${name} main\n`;
    await writeFile(join(directory, 'sources.list'), [
      source(mirror.main, suite.name),
      source(mirror.main, `${suite.name}-updates`),
      mirror.security === undefined ? '' : source(mirror.security, `${suite.name}-security`),
      suite.backports ? source(mirror.main, `${suite.name}-backports`) : '',
    ].join(''));
    await writeFile(join(directory, 'status'), '');
    const config = join(directory, 'apt.conf');
    await writeFile(config, `${await hostTransport()}
Dir::State "${directory}/state";
Dir::State::status "${directory}/status";
Dir::Cache "${directory}/cache";
Dir::Etc::SourceList "${directory}/sources.list";
Dir::Etc::SourceParts "${directory}/parts";
Dir::Etc::Parts "${directory}/parts";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "${directory}/parts";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Debug::NoLocking "true";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
`);
    const apt = new Apt(config, suite);
    await apt.#run(['update'], progress, { what: 'the package lists' });
    return apt;
  }

  /**
   * The packages, as `name=version`, that installing these on an empty system would bring.
   * @throws UsageError for a package that the suite does not have
   */
  async closure(packages: readonly string[]): Promise<string[]> {
    const target = this.suite.backports ? ['-t', `${this.suite.name}-backports`] : [];
    const { stdout } = await this.#run(['-y', '--print-uris', ...target, 'install', ...packages]);
    const names = stdout.split('\n').map((line) => /^'[^']*' ([^_ ]+)_([^_ ]+)_\S+ /.exec(line))
      .filter((match) => match !== null)
      .map((match) => `${match[1]}=${decodeURIComponent(match[2] ?? '')}`);
    if (names.length === 0) {
      throw new EnvironmentError(`apt found nothing to download for ${packages.join(' ')} in ${this.suite.name}`, {
        hint: 'the mirror may not carry this suite; see ROOTPORT_DEBIAN_MIRROR',
      });
    }
    return names;
  }

  /** Download these (`name=version`) into `directory`. */
  async download(packages: readonly string[], directory: string, progress: Progress): Promise<void> {
    await mkdir(directory, { recursive: true });
    await this.#run(['download', ...packages], progress, { what: `${packages.length} packages`, cwd: directory });
  }

  async #run(
    args: readonly string[], progress?: Progress, { what = '', cwd }: { what?: string; cwd?: string } = {},
  ): Promise<{ stdout: string }> {
    const status = progress === undefined ? [] : ['-o', 'APT::Status-Fd=3'];
    const child = execa('apt-get', ['-q', ...status, ...args], {
      env: { APT_CONFIG: this.config, LC_ALL: 'C' },
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
      reject: false,
      ...(cwd === undefined ? {} : { cwd }),
    });
    child.stdio[3]?.on('data', (chunk: Buffer) => {
      const percent = /dlstatus:\d+:([\d.]+):/.exec(chunk.toString('latin1'))?.[1];
      if (percent !== undefined) progress?.update(Number(percent) / 100, what);
    });
    const { failed, stdout, stderr } = await child;
    const unknown = [...stderr.matchAll(/^E: (?:Unable to locate package (\S+)|Package '(\S+)' has no installation candidate)/gm)];
    if (unknown.length > 0) {
      const names = unknown.map(([, lost, virtual]) => lost ?? virtual).join(', ');
      throw new UsageError(`Debian ${this.suite.name} has no package to install by the name of ${names}`, {
        hint: 'apt-cache search and apt-file search find names; a virtual package is asked for by the name of one that provides it',
      });
    }
    // `apt-get update` exits 0 when a list could not be had ("Some index files failed to download").
    if (failed || /^(Err:|E:|W: Failed to fetch)/m.test(`${stdout}\n${stderr}`)) {
      const lines = `${stdout}\n${stderr}`.split('\n').filter((line) => /^(Err:|E:|W:)/.test(line)).slice(0, 6);
      throw new EnvironmentError(`apt-get ${args[0]} failed${what === '' ? '' : ` on ${what}`}:\n${lines.join('\n')}`, {
        hint: 'rootport needs the network once, to fill its cache; check it and the host\'s apt sources ' +
          '(or bring a filled cache and point ROOTPORT_CACHE at it)',
      });
    }
    return { stdout };
  }
}

/** The host's proxy and transport settings for http(s), as apt configuration text. */
async function hostTransport(): Promise<string> {
  const { stdout } = await execa('apt-config', ['dump'], { reject: false });
  return (stdout ?? '').split('\n').filter((line) => /^Acquire::https?::/i.test(line)).join('\n');
}
