// An apt-get that fails, before every other on PATH: what is in the cache must do.
import { chmod, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';

/** It leaves a trace of having been called: the file that is returned. The caller restores PATH. */
export async function breakApt(directory: string): Promise<string> {
  const called = join(directory, 'called');
  await writeFile(join(directory, 'apt-get'), `#!/bin/sh\necho "$@" >>${called}\nexit 100\n`);
  await chmod(join(directory, 'apt-get'), 0o755);
  process.env['PATH'] = [directory, process.env['PATH']].join(delimiter);
  return called;
}
