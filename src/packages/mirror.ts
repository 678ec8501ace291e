// Which Debian mirror the host uses: its own apt sources with the suite swapped. No mirror is named here.
import { existsSync } from 'node:fs';
import { execa } from 'execa';
import { EnvironmentError } from '../errors.ts';

export interface Mirror {
  readonly main: string;
  /** Undefined where the host has no security sources: the main archive's versions are taken then. */
  readonly security: string | undefined;
  /** The keyring that signs the suites; undefined: apt's own trusted keys. */
  readonly keyring: string | undefined;
}

/** What a host without Debian's apt can hand over instead; part of several messages. */
export const HAND_OVER =
  'hand over your own: qemu: \'/path/to/qemu-system-x86_64\', kernel: { image, modulesDir, buildDir }, ' +
  'userland: { busybox, dropbear } (both static), or set ROOTPORT_DEBIAN_MIRROR to a Debian mirror';

const DEBIAN_RELEASE = /^(bullseye|bookworm|trixie|forky|sid|(old)*stable|testing|unstable)(-|$)/;
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

export async function hostMirror(env: NodeJS.ProcessEnv = process.env): Promise<Mirror> {
  const keyring = existsSync(KEYRING) ? KEYRING : undefined;
  const given = env['ROOTPORT_DEBIAN_MIRROR'];
  if (given) return { main: given, security: env['ROOTPORT_DEBIAN_SECURITY_MIRROR'], keyring };
  const listing = await execa(
    'apt-get',
    ['indextargets', '--no-release-info', 'Created-By: Packages', '--format', '$(REPO_URI)|$(RELEASE)'],
    { reject: false },
  );
  if (listing.failed && listing.code !== 'ENOENT') {
    throw new EnvironmentError(`apt-get cannot list its sources: ${listing.stderr.trim()}`, { cause: listing, hint: HAND_OVER });
  }
  if (listing.failed) {
    throw new EnvironmentError('apt-get is not on this host, and the cache does not have what was asked for', {
      cause: listing, hint: HAND_OVER,
    });
  }
  const sources = listing.stdout.split('\n').map((line) => line.split('|'))
    .filter(([, release]) => DEBIAN_RELEASE.test(release ?? ''))
    .map(([uri, release]) => ({ uri: uri ?? '', security: /-security$/.test(release ?? '') }));
  const main = sources.find((source) => !source.security)?.uri;
  if (main === undefined) {
    throw new EnvironmentError('this host\'s apt has no Debian sources', { hint: HAND_OVER });
  }
  return { main, security: sources.find((source) => source.security)?.uri, keyring };
}
