// Whose guest it is: every machine has a port, a host key that is pinned, and a nonce of its own.
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { BootError } from '../../src/errors.ts';
import { SshConnection } from '../../src/guest/ssh.ts';
import { generateClientKey, generateHostKey } from '../../src/image/ssh-keys.ts';
import { boot } from '../../src/machine/boot.ts';
import type { Machine } from '../../src/machine/machine.ts';

let machines: Machine[] = [];
beforeAll(async () => { machines = await Promise.all([boot(), boot()]); });
afterAll(async () => { await Promise.all(machines.map((machine) => machine.close())); });

async function failure(work: Promise<SshConnection>): Promise<BootError> {
  const error = await work.then((connection) => { connection.close(); throw new Error('it let us in'); }, (one: unknown) => one);
  expect(error).toBeInstanceOf(BootError);
  return error as BootError;
}

test('machines that boot at once have a port each, and each its own guest', async () => {
  const targets = machines.map((machine) => machine.innards.sshTarget);
  expect(new Set(targets.map(({ port }) => port)).size).toBe(2);
  expect(new Set(machines.map((machine) => machine.innards.directory)).size).toBe(2);
  const nonces = await Promise.all(machines.map(async (machine) =>
    /rootport_nonce=(\w+)/.exec((await machine.guest.run('cat /proc/cmdline')).stdout)?.[1]));
  expect(nonces).toEqual(targets.map(({ nonce }) => nonce));
});

test('the port of a machine is reached on 127.0.0.1 only', async () => {
  const usernet = await machines[0]?.qmp.hmp('info usernet');
  expect(usernet).toMatch(/HOST_FORWARD.*127\.0\.0\.1/);
  expect(usernet).not.toMatch(/HOST_FORWARD\S*\s+\d+\s+(\*|0\.0\.0\.0)\s/);
});

test('a guest with another nonce, of an earlier run, is refused', async () => {
  const target = machines[0]?.innards.sshTarget;
  if (target === undefined) throw new Error('no machine');
  const error = await failure(SshConnection.connect({ ...target, nonce: '0'.repeat(24) }));
  expect(error.message).toMatch(/is not of this boot: its nonce is another/);
  expect(error.hint).toMatch(/earlier run/);
});

test('a server with another host key is refused', async () => {
  const target = machines[0]?.innards.sshTarget;
  if (target === undefined) throw new Error('no machine');
  const error = await failure(SshConnection.connect({ ...target, hostKeyBase64: generateHostKey().publicBase64 }));
  expect(error.message).toMatch(/has another host key than our image/);
});

test('one machine\'s key opens no other machine', async () => {
  const target = machines[0]?.innards.sshTarget;
  if (target === undefined) throw new Error('no machine');
  const error = await failure(SshConnection.connect({ ...target, privateKey: (await generateClientKey()).privateKey }));
  expect(error.message).toMatch(/did not let us in/);
});

test('a port where nothing listens is a BootError that names it', async () => {
  const target = machines[0]?.innards.sshTarget;
  if (target === undefined) throw new Error('no machine');
  const error = await failure(SshConnection.connect({ ...target, port: 9 }));
  expect(error.message).toMatch(/forwarded SSH port 9 does not answer/);
});

// A dropbear before 2024.86 closes a channel that waits for its command when another command ends just then, and
// ends the connection when the command runs all the same.
test('commands that begin while others end each run once', async () => {
  const guest = (machines[0] as Machine).guest;
  const numbers = Array.from({ length: 160 }, (_, i) => i);
  const workers = Array.from({ length: 8 }, async (_, worker) => {
    for (const i of numbers.filter((n) => n % 8 === worker)) await guest.run(`echo ${i} >> /tmp/ran`);
  });
  await Promise.all(workers);
  const ran = (await guest.readFile('/tmp/ran')).toString().trim().split('\n').map(Number);
  expect(ran.toSorted((a, b) => a - b)).toEqual(numbers);
});
