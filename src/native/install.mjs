// The package's "install" script: builds src/native/addon.c with node-gyp into src/native/build.
// Plain JavaScript, because it runs before anything is compiled. Needs a C compiler, make and python3;
// no C++ compiler. Uses the headers that lie beside the running node, and downloads them only when
// there are none. Also run by hand, outside npm: node src/native/install.mjs
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, realpathSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const prefix = dirname(dirname(realpathSync(process.execPath)));

/** The node-gyp that npm names in a lifecycle script, or else the one bundled with an npm. */
function findNodeGyp() {
  const named = process.env.npm_config_node_gyp;
  if (named !== undefined && existsSync(named)) return named;
  const npmRoots = [join(prefix, 'lib/node_modules/npm'), join(prefix, 'share/nodejs/npm')];
  for (const directory of (process.env.PATH ?? '').split(':')) {
    const npm = join(directory, 'npm');
    // .../npm/bin/npm-cli.js
    if (existsSync(npm)) npmRoots.push(dirname(dirname(realpathSync(npm))));
  }
  const candidates = npmRoots.flatMap((root) => [
    join(root, 'node_modules/node-gyp/bin/node-gyp.js'),
    join(dirname(root), 'node-gyp/bin/node-gyp.js'), // Debian keeps npm's dependencies beside it
  ]);
  return candidates.find((candidate) => existsSync(candidate));
}

/** The prefix whose include/node holds the headers of this very node, if there is one. */
function findHeaders() {
  const include = join(prefix, 'include/node');
  return ['node_api.h', 'uv.h', 'common.gypi'].every((file) => existsSync(join(include, file))) ? prefix : undefined;
}

function has(command) {
  return (process.env.PATH ?? '').split(':').some((directory) => existsSync(join(directory, command)));
}

const TOOLS = 'install a C compiler, make and python3 (Debian: apt-get install gcc libc6-dev make python3)';

/** Builds it, or says why not and what to do. */
function build() {
  const compiler = process.env.CC ?? (has('cc') ? 'cc' : 'gcc');
  const python = process.env.PYTHON ?? 'python3';
  const missing = [compiler, 'make', python].filter((tool) => !tool.includes('/') && !has(tool.split(' ')[0]));
  if (missing.length > 0) return { reason: `${missing.join(', ')} not found`, remedy: TOOLS };
  const nodeGyp = findNodeGyp();
  if (nodeGyp === undefined) return { reason: 'no npm, hence no node-gyp, was found', remedy: 'run it through npm: npm rebuild, or npm install' };
  const headers = findHeaders();

  // Built aside and renamed into place: a build that fails, or runs beside another, spoils nothing in use.
  mkdirSync(join(here, 'build/Release'), { recursive: true });
  const aside = mkdtempSync(join(here, 'build/aside-'));
  try {
    for (const file of ['addon.c', 'binding.gyp']) copyFileSync(join(here, file), join(aside, file));
    const { status, signal, error, stdout, stderr } = spawnSync(
      process.execPath,
      [nodeGyp, 'rebuild', ...(headers === undefined ? [] : [`--nodedir=${headers}`])],
      // gyp links with the C++ compiler unless told otherwise; there is no C++ here.
      { cwd: aside, encoding: 'utf8', env: { ...process.env, CC: compiler, CXX: compiler, LINK: compiler } },
    );
    if (status === 0) {
      renameSync(join(aside, 'build/Release/rootport.node'), join(here, 'build/Release/rootport.node'));
      return undefined;
    }
    console.error(`${stdout ?? ''}${stderr ?? ''}`.split('\n').filter((line) => !line.startsWith('gyp info')).join('\n').trim());
    return {
      reason: error?.message ?? `node-gyp rebuild ${signal === null ? `exited with ${status}` : `was killed by ${signal}`}, see above`,
      remedy: headers !== undefined ? TOOLS
        : "node's headers were not beside it and could not be downloaded: install them (Debian: apt-get install libnode-dev), or use a node with include/node",
    };
  } finally {
    rmSync(aside, { recursive: true, force: true });
  }
}

const problem = process.platform === 'linux' ? build()
  : { reason: `it is for Linux, and this is ${process.platform}`, remedy: 'run rootport on Linux' };
if (problem !== undefined) {
  console.error(`rootport: the native addon was not built: ${problem.reason}\n  hint: ${problem.remedy}`);
  process.exitCode = 1;
}
