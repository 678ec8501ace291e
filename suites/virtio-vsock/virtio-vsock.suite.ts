// The in-tree vsock transport over our socket device: streams in both directions, checked by content; both sides'
// flow control; refusals, resets and ends; unplugged with a stream open. The guest's own program is vsock-cat.c,
// since busybox has none: gcc makes it on the host.
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { q35, virtioVsock, type Guest } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine({ machine: q35({ ports: 4 }), warm: uploadProgram });
const MIB = 2 ** 20;

async function uploadProgram(guest: Guest): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'vsock-cat-'));
  try {
    const program = join(directory, 'vsock-cat');
    execFileSync('gcc', ['-O2', '-Wall', '-static', '-s', '-o', program, fileURLToPath(new URL('vsock-cat.c', import.meta.url))]);
    await guest.upload(readFileSync(program), '/usr/bin/vsock-cat', 0o755);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

test('plugged into a running guest, it gives the guest its context id, over vectors of its own', async () => {
  const vsock = virtioVsock({ guestCid: 42 });
  const fn = await vm.plug(vsock);
  expect((await vm.guest.run('vsock-cat cid')).stdout).toBe('42\n');
  await expect(fn).toHaveMsix({ vectors: 4 });
  expect(await vm.unplug(vsock)).toLeaveNothingBehind();
  await expect(vm).toHaveCleanLog();
});

test('2 MiB from a program in the guest reach the test byte for byte, and its answer goes back', async () => {
  const vsock = virtioVsock();
  await vm.plug(vsock);
  const listener = vsock.listen(1234);
  const content = randomBytes(2 * MIB);
  await vm.guest.upload(content, '/tmp/content');
  const program = await vm.guest.start('vsock-cat connect 1234 </tmp/content');
  const connection = await listener.accept();
  const got = await connection.readToEnd({ timeoutMs: 30_000 });
  expect(got.length).toBe(content.length);
  expect(sha256(got)).toBe(sha256(content));
  await connection.write(`${got.length} bytes`);
  connection.end();
  expect((await program.wait()).stdout).toBe(`${content.length} bytes`);
  expect(vsock.refused).toEqual([]);
  await connection.close(); // the guest's program is gone, and the kernel closes for it
  expect(vsock.connections).toEqual([]);
  await expect(vm).toHaveCleanLog();
});

test('2 MiB from the test reach a program that listens in the guest, byte for byte', async () => {
  const vsock = virtioVsock();
  await vm.plug(vsock);
  const program = await vm.guest.start('vsock-cat listen 5000 </dev/null 2>/tmp/state | sha256sum');
  await vm.guest.until('grep -q listening /tmp/state', 'the guest to listen', 10_000);
  const connection = await vsock.connect(5000);
  const content = randomBytes(2 * MIB);
  await connection.write(content, { timeoutMs: 30_000 });
  await connection.close();
  expect((await program.wait()).stdout.split(' ')[0]).toBe(sha256(content));
  expect(vsock.refused).toEqual([]);
});

test('a guest that nobody reads stops after the receive buffer, and goes on when it is read', async () => {
  const vsock = virtioVsock({ bufferBytes: 16_384 });
  await vm.plug(vsock);
  const listener = vsock.listen(1234);
  const program = await vm.guest.start('head -c 1000000 /dev/zero | tr "\\0" x | vsock-cat connect 1234');
  const connection = await listener.accept();
  const first = await connection.readExactly(1);
  await vm.guest.until('grep -q vsock /proc/$(pidof vsock-cat)/stack', 'the program to sleep in its socket', 10_000);
  expect(connection.unreadBytes).toBeLessThanOrEqual(16_384);
  const rest = await connection.readToEnd({ timeoutMs: 30_000 });
  expect(Buffer.concat([first, rest]).equals(Buffer.alloc(1_000_000, 'x'))).toBe(true);
  connection.end();
  await program.wait();
  expect(vsock.refused).toEqual([]);
});

test('a test that the guest does not read keeps its bytes until the guest does', async () => {
  const vsock = virtioVsock();
  await vm.plug(vsock);
  const listener = vsock.listen(1234);
  await vm.guest.run('rm -f /tmp/go; mkfifo /tmp/go');
  const program = await vm.guest.start('vsock-cat connect 1234 </dev/null | (read word </tmp/go; sha256sum)');
  const connection = await listener.accept();
  const content = randomBytes(2 * MIB);
  const written = connection.write(content, { timeoutMs: 60_000 });
  await expect(connection.write('.', { timeoutMs: 500 })).rejects.toThrow('did not happen');
  expect(connection.credit).toBe(0);
  expect(connection.unsentBytes).toBeGreaterThan(MIB);
  await vm.guest.run('echo go >/tmp/go');
  await written;
  await connection.close();
  expect((await program.wait()).stdout.split(' ')[0]).toBe(sha256(Buffer.concat([content, Buffer.from('.')])));
});

test('a port that nobody listens on is refused, on both sides; a reset by the test is the guest\'s end, and a program killed in the guest is the test\'s', async () => {
  const vsock = virtioVsock();
  await vm.plug(vsock);
  const result = await vm.guest.attempt('vsock-cat connect 9 </dev/null');
  expect(result).toMatchObject({ exitCode: 1, stderr: 'connect: Connection reset by peer\n' });
  await expect(vsock.connect(9)).rejects.toThrow('refused a connection to its port 9');
  expect(vsock.connections).toEqual([]);

  const listener = vsock.listen(1234);
  await vm.guest.run('mkfifo /tmp/go');
  const reset = await vm.guest.start('(read word </tmp/go; echo late) | vsock-cat connect 1234');
  (await listener.accept()).destroy();
  await vm.guest.run('echo go >/tmp/go');
  // Linux takes a reset of an open stream for its end: no ECONNRESET.
  expect(await reset.settled()).toMatchObject({ exitCode: 1, stdout: '', stderr: 'write: Broken pipe\n' });

  const killed = await vm.guest.start('sleep 100 | vsock-cat connect 1234');
  const connection = await listener.accept();
  await vm.guest.run('killall -9 vsock-cat sleep');
  expect(await connection.readToEnd()).toEqual(Buffer.alloc(0));
  await expect(connection.write('late')).rejects.toThrow('receives no more');
  await killed.settled();
});

test('unplugged with a stream open, bytes under way and a listener, it leaves nothing behind and both ends hear of it', async () => {
  const vsock = virtioVsock();
  await vm.plug(vsock);
  const listener = vsock.listen(1234);
  const program = await vm.guest.start('cat /dev/zero | vsock-cat connect 1234 >/dev/null');
  const connection = await listener.accept();
  await connection.readExactly(MIB, { timeoutMs: 30_000 });
  const reading = connection.readToEnd({ timeoutMs: 30_000 });
  await Promise.all([
    expect(reading).rejects.toThrow(/reset the device|reset the connection/),
    vm.unplug(vsock).then((report) => expect(report).toLeaveNothingBehind()),
  ]);
  expect((await program.settled()).stderr).toContain('write:');
  await expect(vm).toHaveCleanLog();

  await vm.plug(vsock); // the same object again: its listener is still there
  const again = await vm.guest.start('echo again | vsock-cat connect 1234');
  const next = await listener.accept();
  expect((await next.readToEnd()).toString()).toBe('again\n');
  next.end();
  await again.wait();
});
