// The control queue under the in-tree virtio_net. QEMU's virtio-net-pci keeps that queue, and config space, to itself;
// its device of any id (11.1) hands both to the back end: there our card hears what the driver says.
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { VirtioNetDevice } from '../../../src/devices/virtio-net/device.ts';
import { encodeEthernet, ETHERTYPE, macBytes, macText } from '../../../src/devices/virtio-net/ethernet.ts';
import { virtioDevice } from '../../../src/devices/virtio-device/index.ts';
import { boot } from '../../../src/machine/boot.ts';
import type { Machine } from '../../../src/machine/machine.ts';
import { q35 } from '../../../src/qemu/preset.ts';

const OWN = '52:54:00:00:00:21';
const OTHER = '52:54:00:00:00:22';
const GROUP = '33:33:00:00:77:77';
const frames: Buffer[] = [];
const card = new VirtioNetDevice({
  queuePairs: 2, queueSizeMax: 256, mac: macBytes(OWN), mtu: 1400, mergeable: true, checksum: true, controlQueue: true,
  onFrame: (frame) => frames.push(Buffer.from(frame)),
  log: () => undefined,
});

let machine: Machine;
let dev: string;
beforeAll(async () => {
  machine = await boot({ qemu: '11.1', machine: q35({ cpus: 2 }) });
  const fn = await machine.plug(virtioDevice({ device: card, modules: ['virtio_net'], ready: 'virtio*/net/*' }));
  dev = (await machine.guest.run(`ls ${fn.sysfs}/virtio*/net`)).stdout.trim();
}, 180_000);
afterAll(() => machine?.close());

/** What becomes of a frame to this address. */
function deliveryTo(mac: string): string {
  const frame = encodeEthernet({ destination: macBytes(mac), source: macBytes('02:00:00:00:00:77'), etherType: ETHERTYPE.LOCAL_EXPERIMENTAL, payload: new Uint8Array(46) });
  return card.send(frame, 0);
}

test('the driver reads address, MTU and pairs from config space, and puts as many pairs to use as there are CPUs', async () => {
  const { stdout } = await machine.guest.run(`cd /sys/class/net/${dev}; cat address mtu; ls queues`);
  expect(stdout.trim().split('\n')).toEqual([OWN, '1400', 'rx-0', 'rx-1', 'tx-0', 'tx-1']);
  await machine.guest.run(`ip addr add 192.0.2.2/24 dev ${dev} && ip link set ${dev} up`);
  expect(card.livePairs).toBe(2); // 1 until VQ_PAIRS_SET
});

test('the card hears the receive modes, and passes what the driver wants and nothing else', async () => {
  expect(card.receiveModes.promiscuous).toBe(false);
  expect([OWN, OTHER, 'ff:ff:ff:ff:ff:ff', GROUP].map(deliveryTo)).toEqual(['delivered', 'filtered', 'delivered', 'filtered']);
  await machine.guest.run(`ip link set ${dev} promisc on`);
  expect(card.receiveModes.promiscuous).toBe(true);
  expect([OTHER, GROUP].map(deliveryTo)).toEqual(['delivered', 'delivered']);
  await machine.guest.run(`ip link set ${dev} promisc off && ifconfig ${dev} allmulti`);
  expect(card.receiveModes).toMatchObject({ promiscuous: false, allMulticast: true });
  expect([OTHER, GROUP].map(deliveryTo)).toEqual(['filtered', 'delivered']);
  await machine.guest.run(`ifconfig ${dev} -allmulti`);
  expect(card.receiveModes.allMulticast).toBe(false);
});

test('a new address of the interface is the card\'s, and the old one is no more', async () => {
  await machine.guest.run(`ip link set ${dev} down && ip link set ${dev} address ${OTHER} && ip link set ${dev} up`);
  expect(macText(card.mac)).toBe(OTHER);
  expect([OTHER, OWN].map(deliveryTo)).toEqual(['delivered', 'filtered']);
  await machine.guest.attempt(`arping -c 1 -w 1 -I ${dev} 192.0.2.1`);
  expect(macText(frames[frames.length - 1]?.subarray(6, 12) ?? new Uint8Array(6))).toBe(OTHER);
  expect(card.refused).toEqual([]);
});
