// A snapshot's copies: each goes on where the machine stood, with its own memory, devices, time and random numbers.
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { edu } from '../../src/devices/edu/index.ts';
import { standIn } from '../../src/devices/stand-in.ts';
import { virtioBlk } from '../../src/devices/virtio-blk/index.ts';
import { UsageError } from '../../src/errors.ts';
import { boot } from '../../src/machine/boot.ts';
import { keepScene, restoreScene } from '../../src/machine/kept-scene.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { Snapshot } from '../../src/machine/snapshot.ts';
import { pc, q35 } from '../../src/qemu/preset.ts';

/** Of this process: a machine's name has the pid of its maker, a snapshot's directory too. */
const kept = async (): Promise<string[]> => (await readdir(tmpdir())).filter((name) => name.startsWith(`rootport-snapshot--${process.pid}-`));
const said = async ({ guest }: Machine, command: string): Promise<string> => (await guest.run(command)).stdout.trim();
const random = (machine: Machine): Promise<string> => said(machine, 'head -c 16 /dev/urandom | od -An -tx1');

describe.each([
  ['10.0', q35({ cpus: 2 })], ['7.2', q35()], ['11.1', q35()], ['10.0', pc()],
] as const)('QEMU %s, %o', (qemu, type) => {
  let snapshot: Snapshot;
  beforeAll(async () => {
    const machine = await boot({ qemu, machine: type });
    await machine.guest.run('echo before >/root/state');
    snapshot = await Snapshot.take(machine);
  }, 180_000);
  afterAll(() => snapshot?.close());

  test('copies start from the same state, and what one does the other does not see', async () => {
    await using one = await snapshot.restore();
    await one.guest.run('echo one >/root/state; echo 1 >/proc/sys/vm/drop_caches');
    await using two = await snapshot.restore();
    expect(await said(two, 'cat /root/state')).toBe('before');
    expect(await said(one, 'cat /root/state')).toBe('one');
    expect(one.kernelLog.reports).toEqual([]);
  });

  test('a copy has the time of now and random numbers of its own', async () => {
    await using one = await snapshot.restore();
    await using two = await snapshot.restore();
    const now = Math.floor(Date.now() / 1000);
    expect(Math.abs(Number(await said(two, 'date +%s')) - now)).toBeLessThan(30);
    expect(await random(one)).not.toBe(await random(two));
    expect(await said(two, 'dmesg | grep -c "crng reseeded due to virtual machine fork"')).toBe('1');
  });

  test('devices are plugged into a copy, served, probed, kept as a failure would leave them, and unplugged', async () => {
    await using machine = await snapshot.restore();
    const disk = virtioBlk({ capacityBytes: 2 ** 20 });
    disk.bytes.fill(0x5a);
    const fn = await machine.plug(disk);
    const name = await said(machine, `ls ${fn.sysfs}/virtio*/block`);
    expect(await said(machine, `dd if=/dev/${name} bs=4k count=1 iflag=direct 2>/dev/null | od -An -tx1 -N4`)).toBe('5a 5a 5a 5a');
    const device = edu();
    const probed = await machine.probe(await machine.plug(device));
    expect(await probed.memRead(0, 0, 4)).toBe(0x010000edn);
    // As a failure would leave it: kept with its devices, brought back without their back ends, while it goes on.
    const directory = await mkdtemp(join(tmpdir(), 'kept-scene-'));
    try {
      expect((await keepScene(machine, directory)).stateless).toEqual(['dev1']);
      expect(await said(machine, `dd if=/dev/${name} bs=4k count=1 iflag=direct 2>/dev/null | od -An -tx1 -N4`)).toBe('5a 5a 5a 5a');
      await using scene = await restoreScene(directory, { standIn });
      expect(scene.lacks).toEqual([expect.stringMatching(/^dev1 \(edu in .*QEMU does not save/), expect.stringMatching(/back end of dev0 \(virtio-blk in .* is not here/)]);
      expect(await scene.qmp.execute('query-status')).toMatchObject({ running: false });
      await scene.goOn();
      const ssh = await scene.connect();
      const { stdout } = await ssh.exec(`cat /sys/block/${name}/size /root/state; ls /sys/module/rootport_probe/drivers`, { timeoutMs: 10_000 });
      expect(stdout.toString()).toBe('2048\nbefore\npci:rootport_probe\n');
      ssh.close();
    } finally {
      await rm(directory, { recursive: true });
    }
    expect(await machine.unplug(device)).toMatchObject({ leftovers: [] });
    expect(await machine.unplug(disk)).toMatchObject({ leftovers: [] });
  });
});

describe('a snapshot', () => {
  test('of a machine with a device is refused, and the machine goes on', async () => {
    await using machine = await boot();
    const device = edu();
    await machine.plug(device);
    await expect(Snapshot.take(machine)).rejects.toMatchObject({ name: 'UsageError', message: expect.stringContaining('a device plugged (edu)') });
    expect(await said(machine, 'echo alive')).toBe('alive');
  });

  test('is removed from disk by close(), restores nothing after it, and its copies live on', async () => {
    const snapshot = await Snapshot.take(await boot());
    expect(await kept()).toHaveLength(1);
    await using machine = await snapshot.restore();
    await snapshot.close();
    expect(await kept()).toEqual([]);
    await expect(snapshot.restore()).rejects.toThrow(UsageError);
    expect(await said(machine, 'echo alive')).toBe('alive');
  });
});
