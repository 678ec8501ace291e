// The in-tree virtio_net driver over our back end: what it sends, what it takes, and what it does about a
// card that goes away. The harness's own card is eth0; ours is found by its PCI function.
import { expect, test } from '@jest/globals';
import { q35, scriptedPeer, virtioNet, type PciFunction } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine({ machine: q35({ cpus: 2 }) });

/** The network interface of a function. */
async function interfaceOf(fn: PciFunction): Promise<string> {
  return (await vm.guest.run(`ls ${fn.sysfs}/virtio*/net`)).stdout.trim();
}

/** Give the interface an address and wait until it can send. */
async function up(fn: PciFunction, address: string): Promise<string> {
  const dev = await interfaceOf(fn);
  await vm.guest.run(`ip addr add ${address} dev ${dev} && ip link set ${dev} up`);
  return dev;
}

test('a ping is answered by the peer, and both of its queues\' vectors are delivered', async () => {
  const peer = scriptedPeer({ ipv4: '192.0.2.1' });
  const net = virtioNet({ peer });
  const fn = await vm.plug(net);
  await expect(fn).toHaveMsix({ vectors: 4, tableBar: 1 });
  const since = await vm.mark(fn);
  await up(fn, '192.0.2.2/24');
  const { stdout } = await vm.guest.run('ping -c 3 -i 0.2 192.0.2.1');
  expect(stdout).toContain('3 packets received, 0% packet loss');
  expect(peer.answered).toBe(4); // one ARP request, three pings
  expect(net.refused).toEqual([]);
  await expect(fn).toHaveDelivered({ vector: 1, atLeast: 1, since });
  await expect(fn).toHaveDelivered({ vector: 2, atLeast: 1, since });
  expect(await vm.unplug(net)).toLeaveNothingBehind();
  await expect(vm).toHaveCleanLog();
});
