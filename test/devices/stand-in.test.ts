// A stand-in for a back end that is gone: the same to a front end, over a real socket, and mute.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { deviceOfOutline, outlineOf } from '../../src/devices/back-end-outline.ts';
import { standIn } from '../../src/devices/stand-in.ts';
import { virtioBlk } from '../../src/devices/virtio-blk/index.ts';
import { ProtocolError } from '../../src/errors.ts';
import type { Attachment, AttachSite, FormerAttachment } from '../../src/qemu/attachment.ts';
import { FrontEnd } from '../vhost-user/front-end.ts';

let directory: string;
const attachments: Attachment[] = [];
beforeEach(async () => { directory = await mkdtemp(join(tmpdir(), 'stand-in-')); });
afterEach(async () => {
  for (const one of attachments.splice(0)) await one.detach();
  await rm(directory, { recursive: true });
});
const site = (id: string): AttachSite => ({ id, directory, fail: (error) => { throw error; }, log: () => undefined });

test.each([false, true])('a disk (packed: %s) and what stands in for it offer a front end the same', async (packed) => {
  const disk = virtioBlk({ capacityBytes: 3 * 2 ** 20, queues: 2, packed });
  const real = await disk.attach(site('real'));
  attachments.push(real);
  const former = JSON.parse(JSON.stringify({ kind: disk.kind, ...real, backEnd: real.backEnd?.() })) as FormerAttachment;
  const mute = await standIn({ ...former, chardevs: former.chardevs.map((one) => ({ ...one, path: 'mute.sock' })) }).attach(site('real'));
  attachments.push(mute);
  expect(mute).toMatchObject({ driver: 'vhost-user-blk-pci', properties: real.properties, chardevs: [{ id: real.chardevs[0]?.id, path: join(directory, 'mute.sock') }] });
  const seen = await Promise.all([real, mute].map(async ({ chardevs: [chardev] }) => {
    const front = new FrontEnd(chardev?.path ?? '');
    try {
      const [features, protocol] = [await front.ask('GET_FEATURES', undefined), await front.ask('GET_PROTOCOL_FEATURES', undefined)];
      await front.negotiate();
      const config = await front.ask('GET_CONFIG', { offset: 0, flags: 0, bytes: new Uint8Array(60) });
      return [features.value, protocol.value, (await front.ask('GET_QUEUE_NUM', undefined)).value, Buffer.from(config.payload).toString('hex')];
    } finally {
      front.close();
    }
  }));
  expect(seen[1]).toEqual(seen[0]);
  expect(former.backEnd?.config).toMatch(/^0018000000000000/); // its capacity, in sectors
});

test.each([
  ['several chardevs', { chardevs: [{ id: 'a', path: 'a' }, { id: 'b', path: 'b' }] }],
  ['a chardev and nothing behind it', { chardevs: [{ id: 'a', path: 'a' }] }],
])('a device with %s has none', (_, more) => {
  expect(() => standIn({ kind: 'ivshmem', driver: 'ivshmem-doorbell', properties: {}, ...more })).toThrow(ProtocolError);
});

test('what is no outline makes no device', () => {
  const outline = outlineOf(deviceOfOutline({ deviceId: 4, features: '0x1', ringFeatures: '0x0', queueCount: 1, queueSizeMax: 8, config: '' }));
  for (const wrong of [{ queueCount: 0 }, { queueSizeMax: 1e9 }, { features: 'all' }, { config: 'xyz' }]) expect(() => deviceOfOutline({ ...outline, ...wrong })).toThrow(ProtocolError);
});
