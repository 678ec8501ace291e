// The package's "install" script: builds src/native/addon.c with node-gyp into src/native/build.
// Plain JavaScript, because it runs before anything is compiled. Needs a C compiler, make and python3;
// no C++ compiler. Uses the headers that lie beside the running node, and downloads them only when
// there are none. Also run by hand, outside npm: node src/native/install.mjs
import { spawnSync } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
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

function fail(reason, remedy) {
  console.error(`rootport: the native addon was not built: ${reason}\n  hint: ${remedy}`);
  process.exit(1);
}

if (process.platform !== 'linux') fail(`it is for Linux, and this is ${process.platform}`, 'run rootport on Linux');
const compiler = process.env.CC ?? (has('cc') ? 'cc' : 'gcc');
const missing = [compiler, 'make', process.env.PYTHON ?? 'python3'].filter((tool) => !tool.includes('/') && !has(tool.split(' ')[0]));
if (missing.length > 0) {
  fail(`${missing.join(', ')} not found`, 'install a C compiler, make and python3 (Debian: apt-get install gcc libc6-dev make python3)');
}
const nodeGyp = findNodeGyp();
if (nodeGyp === undefined) fail('no npm, hence no node-gyp, was found', 'run it through npm: npm rebuild, or npm install');

const headers = findHeaders();
const built = spawnSync(
  process.execPath,
  [nodeGyp, 'rebuild', ...(headers === undefined ? [] : [`--nodedir=${headers}`])],
  // gyp links with the C++ compiler unless told otherwise; there is no C++ here.
  { cwd: here, encoding: 'utf8', env: { ...process.env, CC: compiler, CXX: compiler, LINK: compiler } },
);
if (built.status !== 0) {
  const said = `${built.stdout ?? ''}${built.stderr ?? ''}`.split('\n').filter((line) => !line.startsWith('gyp info'));
  console.error(said.join('\n').trim());
  fail(
    built.error?.message ?? `node-gyp rebuild ${built.signal === null ? `exited with ${built.status}` : `was killed by ${built.signal}`}, see above`,
    headers === undefined
      ? "node's headers were not beside it and could not be downloaded: install them (Debian: apt-get install libnode-dev), or use a node with include/node"
      : 'install a C compiler, make and python3 (Debian: apt-get install gcc libc6-dev make python3)',
  );
}
