// The control queue of the in-tree virtio_net. QEMU's virtio-net-pci keeps that queue, and config space, to itself; its
// device of any id (11.1) hands both to the back end: there our card hears what the driver says, and does it.
import { expect, test } from '@jest/globals';
import { decodeEthernet, encodeEthernet, ETHERTYPE, macBytes, macText, q35, virtioNet, type VirtioNet } from 'rootport';
import { useMachine } from 'rootport/jest';

const OWN = '52:54:00:00:00:21';
const OTHER = '52:54:00:00:00:22';
const GROUP = '33:33:00:00:77:77';
const BROADCAST = 'ff:ff:ff:ff:ff:ff';
const vm = useMachine({ machine: q35({ cpus: 2 }), qemu: '11.1', packages: ['ethtool'], modules: ['8021q'] });

/** Plug it and bring it up: the card, and its interface. */
async function up(): Promise<{ card: VirtioNet; dev: string }> {
  const card = virtioNet({ controlQueue: true, queuePairs: 2, mtu: 1400, mac: OWN });
  const fn = await vm.plug(card);
  const dev = (await vm.guest.run(`ls ${fn.sysfs}/virtio*/net`)).stdout.trim();
  await vm.guest.run(`ip addr add 192.0.2.2/24 dev ${dev} && ip link set ${dev} up`);
  return { card, dev };
}

/** What becomes of frames to these addresses. */
function deliveries(card: VirtioNet, addresses: readonly string[], vlan?: number): string[] {
  return addresses.map((mac) => {
    const frame = encodeEthernet({ destination: macBytes(mac), source: macBytes('02:00:00:00:00:77'), etherType: ETHERTYPE.LOCAL_EXPERIMENTAL, payload: new Uint8Array(46) });
    const tag = vlan === undefined ? [] : [0x81, 0, vlan >> 8, vlan & 0xff]; // IEEE 802.1Q, after the addresses
    return card.send(Buffer.concat([frame.subarray(0, 12), Buffer.from(tag), frame.subarray(12)]), { queuePair: 0 });
  });
}

test('the driver reads address, MTU and pairs from config space, and uses as many pairs as it is told to', async () => {
  const { card, dev } = await up();
  const { stdout } = await vm.guest.run(`cd /sys/class/net/${dev}; cat address mtu; ls queues`);
  expect(stdout.trim().split('\n')).toEqual([OWN, '1400', 'rx-0', 'rx-1', 'tx-0', 'tx-1']);
  expect([card.wanted.queuePairs, card.livePairs]).toEqual([2, 2]); // 1 until VQ_PAIRS_SET
  await vm.guest.run(`ethtool -L ${dev} combined 1`);
  expect([card.wanted.queuePairs, card.livePairs]).toEqual([1, 1]);
  await vm.guest.run(`ethtool -L ${dev} combined 2`);
  expect([card.wanted.queuePairs, card.livePairs]).toEqual([2, 2]);
  await expect(vm).toHaveCleanLog();
});

test('the card hears the receive modes and multicast groups, and passes what the driver wants and nothing else', async () => {
  const { card, dev } = await up();
  const all = [OWN, OTHER, BROADCAST, GROUP];
  expect(card.wanted.modes).toMatchObject({ promiscuous: false, allMulticast: false });
  expect(deliveries(card, all)).toEqual(['delivered', 'filtered', 'delivered', 'filtered']);
  await vm.guest.run(`ip link set ${dev} promisc on`);
  expect(card.wanted.modes.promiscuous).toBe(true);
  expect(deliveries(card, all)).toEqual(['delivered', 'delivered', 'delivered', 'delivered']);
  await vm.guest.run(`ip link set ${dev} promisc off && ifconfig ${dev} allmulti`);
  expect(card.wanted.modes).toMatchObject({ promiscuous: false, allMulticast: true });
  expect(deliveries(card, all)).toEqual(['delivered', 'filtered', 'delivered', 'delivered']);
  await vm.guest.run(`ifconfig ${dev} -allmulti`);
  expect(card.wanted.modes.allMulticast).toBe(false);
  // All hosts: 224.0.0.1 and ff02::1 (RFC 1112, 2464), which each interface that is up listens to.
  expect(card.wanted.multicast).toEqual(expect.arrayContaining(['01:00:5e:00:00:01', '33:33:00:00:00:01']));
  expect(deliveries(card, ['01:00:5e:00:00:01', '01:00:5e:00:00:99'])).toEqual(['delivered', 'filtered']);
  expect(card.counts.received.dropped.filtered).toBe(2 + 1 + 1);
  await expect(vm).toHaveCleanLog();
});

test('a frame of a VLAN passes once the guest has that VLAN, and no longer than that', async () => {
  const { card, dev } = await up();
  await vm.guest.run('modprobe 8021q');
  const of = (vlan: number): string[] => deliveries(card, [OWN], vlan);
  expect([...of(5), ...of(6)]).toEqual(['filtered', 'filtered']);
  await vm.guest.run(`ip link add link ${dev} name vlan5 type vlan id 5 && ip link set vlan5 up`);
  expect(card.wanted.vlans).toEqual(expect.arrayContaining([5]));
  expect([...of(5), ...of(6)]).toEqual(['delivered', 'filtered']);
  await vm.guest.until('[ $(cat /sys/class/net/vlan5/statistics/rx_packets) -ge 1 ]', 'the frame to arrive in the VLAN', 10_000);
  await vm.guest.run('ip link del vlan5');
  expect(card.wanted.vlans).not.toContain(5);
  expect([...of(5), ...of(6)]).toEqual(['filtered', 'filtered']);
  await expect(vm).toHaveCleanLog();
});

test('a new address of the interface is the card\'s, and the old one is no more', async () => {
  const { card, dev } = await up();
  await vm.guest.run(`ip link set ${dev} down && ip link set ${dev} address ${OTHER} && ip link set ${dev} up`);
  expect(card.wanted.mac).toBe(OTHER);
  expect(deliveries(card, [OTHER, OWN])).toEqual(['delivered', 'filtered']);
  const asking = await vm.guest.start(`arping -c 1 -w 1 -I ${dev} 192.0.2.1`);
  const request = decodeEthernet(await card.nextFrame({ where: (frame) => decodeEthernet(frame)?.payload.subarray(24, 28).join('.') === '192.0.2.1' }));
  expect(macText(request?.source ?? new Uint8Array(6))).toBe(OTHER);
  await asking.settled();
  expect(card.refused).toEqual([]);
  await expect(vm).toHaveCleanLog();
});
