// A process of the network test: lays out a package tree, and kills itself with -9 when one package is there.
import { ensureTree, silentProgress } from '../../dist/packages/index.js';

let layingOut = false;
await ensureTree('userland', {
  ...silentProgress,
  start: (text) => { layingOut = text.includes('laying out'); },
  update: () => { if (layingOut) process.kill(process.pid, 'SIGKILL'); },
});
