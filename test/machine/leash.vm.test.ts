// The leash, tested by doing it: the process that owns a machine is killed with -9.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from '@jest/globals';
import pRetry from 'p-retry';

const OWNER = fileURLToPath(new URL('owner.mjs', import.meta.url));
const children: number[] = [];
afterEach(() => {
  for (const pid of children.splice(0)) try { process.kill(pid, 'SIGKILL'); } catch { /* gone, as it should be */ }
});

interface Owned { readonly qemu: number; readonly directory: string; readonly sockets: string[] }

/** A process that has a machine with an ivshmem plugged, says what it has, and waits. */
function startOwner(way: 'boot' | 'restore'): Promise<{ pid: number; owned: Owned }> {
  const child = spawn(process.execPath, [OWNER, way], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child.pid ?? 0);
  return new Promise((resolve, reject) => {
    let said = '';
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes('\n')) resolve({ pid: child.pid ?? 0, owned: JSON.parse(said) as Owned });
    });
    child.on('exit', (code) => reject(new Error(`the owner exited with ${code}`)));
  });
}

test.each([['SIGKILL', 'boot'], ['SIGKILL', 'restore'], ['SIGTERM', 'restore'], ['SIGINT', 'restore']] as const)(
  'within two seconds of a %s to the owner of a machine (%s) no QEMU, socket or directory is left',
  async (signal, way) => {
    const { pid, owned } = await startOwner(way);
    expect(alive(owned.qemu)).toBe(true);
    expect(owned.sockets.length).toBeGreaterThan(0);
    for (const path of owned.sockets) expect(existsSync(path)).toBe(true);
    const killedAt = Date.now();
    process.kill(pid, signal);
    await pRetry(() => {
      if (alive(owned.qemu)) throw new Error(`QEMU ${owned.qemu} still runs`);
      if (existsSync(owned.directory)) throw new Error(`${owned.directory} is still there`);
    }, { retries: 100, minTimeout: 20, factor: 1 });
    expect(Date.now() - killedAt).toBeLessThan(2000);
    for (const path of owned.sockets) expect(existsSync(path)).toBe(false);
  },
);

function alive(pid: number): boolean {
  try {
    return !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
