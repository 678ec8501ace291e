// The in-tree virtio_net driver over our back end: what it sends, what it takes, and what it does about a
// card that lies or goes away. The harness's own card is eth0; ours is found by its PCI function.
import { createHash } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import {
  decodeEthernet, encodeEthernet, ETHERTYPE, loopback, macBytes, netLink, q35, scriptedPeer, virtioNet,
  type NetPeer, type PciFunction, type VirtioNet,
} from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine({ machine: q35({ cpus: 2 }) });
type Mark = Awaited<ReturnType<typeof vm.mark>>;
const MIB = 2 ** 20;

/** The network interface of a function. */
async function interfaceOf(fn: PciFunction): Promise<string> {
  return (await vm.guest.run(`ls ${fn.sysfs}/virtio*/net`)).stdout.trim();
}

/** Give the interface an address and bring it up. */
async function up(fn: PciFunction, address: string): Promise<string> {
  const dev = await interfaceOf(fn);
  await vm.guest.run(`ip addr add ${address} dev ${dev} && ip link set ${dev} up`);
  return dev;
}

/** A peer of one's own: one that counts what the guest sends, and hands it on. */
function watch(inner: NetPeer): { peer: NetPeer; more: (frames: number) => Promise<void> } {
  let [left, reached] = [0, (): void => undefined];
  return {
    peer: {
      ...inner,
      receive(frame, port, queuePair) {
        inner.receive(frame, port, queuePair);
        left -= 1;
        if (left === 0) reached();
      },
    },
    more: (frames) => new Promise((resolve) => { [left, reached] = [frames, resolve]; }),
  };
}

describe('a scripted peer', () => {
  test('with an address answers a ping, and both queues interrupt', async () => {
    const peer = scriptedPeer({ ipv4: '192.0.2.1' });
    const net = virtioNet({ peer });
    const fn = await vm.plug(net);
    await expect(fn).toHaveMsix({ vectors: net.vectors });
    const since = await vm.mark(fn);
    await up(fn, '192.0.2.2/24');
    const { stdout } = await vm.guest.run('ping -c 3 -i 0.2 -s 1400 192.0.2.1');
    expect(stdout).toContain('3 packets received, 0% packet loss');
    expect(peer.answered).toBe(4); // one ARP request, three pings
    expect(net.refused).toEqual([]);
    for (const queue of [0, 1]) await interrupted(fn, net, queue, since);
    expect(await vm.unplug(net)).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });

  test('reads what the guest sent and answers what it likes', async () => {
    const net = virtioNet();
    const dev = await up(await vm.plug(net), '192.0.2.2/24');
    const asking = await vm.guest.start(`arping -c 1 -w 20 -I ${dev} 192.0.2.77`);
    const request = decodeEthernet(await net.nextFrame({ where: (frame) => decodeEthernet(frame)?.etherType === ETHERTYPE.ARP }));
    if (request === undefined) throw new Error('a frame without a header');
    const me = macBytes('02:00:00:00:00:77');
    const reply = Buffer.from(request.payload);
    reply[7] = 2; // a reply: our addresses, then the asker's
    reply.set([...me, 192, 0, 2, 77], 8);
    reply.set(request.payload.subarray(8, 18), 18);
    expect(net.send(encodeEthernet({ destination: request.source, source: me, etherType: ETHERTYPE.ARP, payload: reply }))).toBe('delivered');
    expect((await asking.wait()).stdout).toMatch(/reply from 192\.0\.2\.77 \[02:00:00:00:00:77\]/i);
  });
});

test('the driver has the address and the MTU that the card has, and as many queues as CPUs can use', async () => {
  const net = virtioNet({ queuePairs: 2, mtu: 1400, mac: '52:54:00:aa:bb:cc' });
  const fn = await vm.plug(net);
  const dev = await interfaceOf(fn);
  const { stdout } = await vm.guest.run(`cd /sys/class/net/${dev}; cat address mtu; ls queues`);
  expect(stdout.trim().split('\n')).toEqual(['52:54:00:aa:bb:cc', '1400', 'rx-0', 'rx-1', 'tx-0', 'tx-1']);
  expect((await vm.guest.attempt(`ip link set ${dev} mtu 1500`)).exitCode).not.toBe(0);
  await expect(fn).toHaveMsix({ vectors: net.vectors });
  expect(await fn.messageIrqs()).toHaveLength(net.vectors > 0 ? 5 : 0); // configuration changes, and two for each pair
});

test('each CPU sends on a queue of its own, the answer comes on the same pair, and their vectors are delivered', async () => {
  const net = virtioNet({ queuePairs: 2, peer: scriptedPeer({ ipv4: '192.0.2.1' }) });
  const fn = await vm.plug(net);
  await up(fn, '192.0.2.2/24');
  await vm.guest.run('ping -c 1 192.0.2.1'); // ARP is done with
  for (const cpu of [0, 1]) {
    const since = await vm.mark(fn);
    const [received, sent] = [net.queue(2 * cpu), net.queue(2 * cpu + 1)].map(({ counts }) => counts.completed);
    await vm.guest.run(`taskset -c ${cpu} ping -c 5 -i 0.1 192.0.2.1`);
    expect(net.queue(2 * cpu + 1).counts.completed - (sent ?? 0)).toBeGreaterThanOrEqual(5);
    expect(net.queue(2 * cpu).counts.completed - (received ?? 0)).toBeGreaterThanOrEqual(5);
    for (const queue of [2 * cpu, 2 * cpu + 1]) await interrupted(fn, net, queue, since);
  }
  await expect(vm).toHaveCleanLog();
});

test('marks that are taken while packets come and go accuse nobody', async () => {
  const net = virtioNet({ queuePairs: 2, peer: scriptedPeer({ ipv4: '192.0.2.1' }) });
  const fn = await vm.plug(net);
  await up(fn, '192.0.2.2/24');
  const pinging = await vm.guest.start('ping -q -c 60 -i 0.02 192.0.2.1');
  const marks = [];
  for (let at = 0; at < 4; at += 1) marks.push(await vm.mark(fn));
  expect((await pinging.wait()).stdout).toContain('60 packets received, 0% packet loss');
  if (net.vectors > 0) for (const since of marks) await expect(fn).toHaveDelivered([], { since });
});

/** The queue's vector was delivered. Where QEMU can give the card none (7.2 under TCG) the queues share INTx. */
async function interrupted(fn: PciFunction, net: VirtioNet, queue: number, since: Mark): Promise<void> {
  if (net.vectors > 0) return expect(fn).toHaveDelivered({ vector: queue + 1, atLeast: 1, since });
  const { stdout } = await vm.guest.run('grep virtio /proc/interrupts');
  expect(stdout).toMatch(/[1-9]\d* .*IO-APIC.*virtio[1-9]/);
}

/** Plug two cards that are linked, the second in a network namespace: the first reaches it over the link only. */
async function linked(cards: readonly [VirtioNet, VirtioNet], mtu: number): Promise<{ away: string; end: () => Promise<void> }> {
  const here = await up(await vm.plug(cards[0]), '192.0.2.2/24');
  const there = await interfaceOf(await vm.plug(cards[1]));
  const space = await vm.guest.start('exec unshare -n sh -c "echo \\$\\$ >/tmp/netns; exec sleep 1000"');
  await vm.guest.until('[ -s /tmp/netns ]', 'the network namespace', 10_000);
  const pid = (await vm.guest.run('cat /tmp/netns; rm /tmp/netns')).stdout.trim();
  const away = `nsenter -t ${pid} -n`;
  await vm.guest.run(`ip link set ${there} netns ${pid} && ${away} ip addr add 192.0.2.3/24 dev ${there} && ${away} ip link set ${there} up mtu ${mtu} && ip link set ${here} mtu ${mtu}`);
  return {
    away,
    end: async () => {
      await vm.guest.run(`kill ${pid}`);
      await space.settled();
    },
  };
}

describe('two cards on a link, one of them in a network namespace', () => {
  test.each([[1500, 2], [9000, 4]])('with an MTU of %i carry %i MiB each way over TCP, and what arrives is what was sent', async (mtu, mib) => {
    const { ends } = netLink();
    const cards = [virtioNet({ peer: ends[0] }), virtioNet({ peer: ends[1], queueSize: 1024 })] as const;
    const { away, end } = await linked(cards, mtu);
    const content = Buffer.alloc(mib * MIB);
    for (let i = 0; i < content.length; i += 4) content.writeUInt32LE(Math.imul(i + mtu, 0x9e3779b1) >>> 0, i);
    const checksum = createHash('sha256').update(content).digest('hex');
    await vm.guest.upload(content, '/tmp/www/content');
    const serve = (where: string): Promise<unknown> => vm.guest.run(`${where} httpd -p 8000 -h /tmp/www`);
    const fetch = async (where: string, from: string): Promise<string | undefined> => {
      const { stdout } = await vm.guest.run(`${where} wget -q -O - http://${from}:8000/content | sha256sum`, { timeoutMs: 60_000 });
      return stdout.split(' ')[0];
    };
    await serve('');
    await serve(away);
    expect(await fetch(away, '192.0.2.2')).toBe(checksum);
    expect(await fetch('', '192.0.2.3')).toBe(checksum);
    const { received } = cards[1].counts;
    expect(received.bytes).toBeGreaterThan(mib * MIB);
    // A jumbo frame takes several of the driver's buffers; a small one takes one.
    const { completed } = cards[1].queue(0).counts;
    if (mtu > 1500) expect(completed).toBeGreaterThan(received.frames);
    else expect(completed).toBe(received.frames);
    expect([...cards[0].refused, ...cards[1].refused]).toEqual([]);
    await vm.guest.run('killall httpd');
    await end();
    for (const card of cards) expect(await vm.unplug(card)).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });
});

describe('a card that does not do what it should', () => {
  test('whose frame has no buffer, since the interface is down, drops and counts it; whose header promises more buffers than it used, or whose frame is a runt, is a length error to the driver', async () => {
    const net = virtioNet();
    const fn = await vm.plug(net);
    expect(net.send(new Uint8Array(60))).toBe('no-buffers');
    const dev = await up(fn, '192.0.2.2/24');
    const frame = encodeEthernet({ destination: macBytes(net.mac), source: macBytes('02:00:00:00:00:77'), etherType: ETHERTYPE.LOCAL_EXPERIMENTAL, payload: new Uint8Array(46) });
    const errors = (count: number): Promise<void> =>
      vm.guest.until(`[ $(cat /sys/class/net/${dev}/statistics/rx_length_errors) = ${count} ]`, `${count} length errors`, 10_000);
    expect(net.send(frame, { header: { num_buffers: 3 } })).toBe('delivered');
    expect(net.counts.received.dropped['no-buffers']).toBe(1);
    await errors(1); // one by one: what comes soon after would be taken for the missing buffers
    net.send(new Uint8Array(5));
    await errors(2);
    net.send(frame);
    await vm.guest.until(`[ $(cat /sys/class/net/${dev}/statistics/rx_packets) -ge 1 ]`, 'the good frame to arrive', 10_000);
    await expect(vm).toHaveCleanLog();
  });

  test('that loses an interrupt leaves a ping waiting, until the card interrupts once more', async () => {
    const net = virtioNet({ peer: scriptedPeer({ ipv4: '192.0.2.1' }) });
    await up(await vm.plug(net), '192.0.2.2/24');
    await vm.guest.run('ping -c 1 192.0.2.1');
    net.queue(0).dropInterrupts(1);
    net.queue(1).dropInterrupts(10); // on INTx any queue's interrupt has the driver look at all of them
    const { frames } = net.counts.received;
    const ping = await vm.guest.start('ping -c 1 -W 20 192.0.2.1');
    await net.nextFrame({ where: (frame) => decodeEthernet(frame)?.etherType === ETHERTYPE.IPV4 && net.counts.received.frames > frames });
    const early = await Promise.race([ping.settled(), vm.guest.run('sleep 0.5').then(() => 'still waiting')]);
    expect(early).toBe('still waiting');
    net.queue(0).interrupt();
    expect((await ping.wait()).stdout).toContain('1 packets received');
  });

  test('whose transmit queue stands still keeps what is sent from the peer, and lets it go when it is released', async () => {
    const peer = scriptedPeer({ ipv4: '192.0.2.1' });
    const net = virtioNet({ peer });
    await up(await vm.plug(net), '192.0.2.2/24');
    await vm.guest.run('ping -c 1 192.0.2.1');
    const { answered } = peer;
    net.queue(1).hold();
    const pings = await vm.guest.start('ping -c 3 -i 0.1 -W 20 192.0.2.1');
    await net.queue(1).nextRequest(); // a driver with byte queue limits (6.12) sends no more until this one is done
    expect(net.queue(1).waiting).toBeGreaterThanOrEqual(1);
    expect(peer.answered).toBe(answered);
    net.queue(1).release();
    expect((await pings.wait()).stdout).toContain('3 packets received, 0% packet loss');
  });
});

describe('hot-unplug', () => {
  test('in the middle of a TCP stream leaves nothing behind, and plugged again the same card carries the next one', async () => {
    const { ends } = netLink();
    const watched = watch(ends[0]);
    const cards = [virtioNet({ peer: watched.peer, queuePairs: 2 }), virtioNet({ peer: ends[1], queuePairs: 2 })] as const;
    await vm.guest.run('mkdir -p /tmp/www && truncate -s 2G /tmp/www/endless && httpd -p 8000 -h /tmp/www');
    for (let plug = 0; plug < 2; plug += 1) {
      const { away, end } = await linked(cards, 1500);
      const stream = await vm.guest.start(`${away} timeout 60 wget -q -O /dev/null http://192.0.2.2:8000/endless`);
      await watched.more(100); // data out of the first card, acknowledgements into it
      expect(await vm.unplug(cards[0])).toLeaveNothingBehind();
      expect(cards[0].livePairs).toBe(0);
      stream.channel.close();
      await vm.guest.run('killall wget');
      await end();
      expect(await vm.unplug(cards[1])).toLeaveNothingBehind();
    }
    await vm.guest.run('killall httpd; rm /tmp/www/endless');
    await expect(vm).toHaveCleanLog();
  });

  test('with a packet in flight to the card waits for nothing: the driver\'s remove() returns', async () => {
    const net = virtioNet({ peer: loopback() });
    const fn = await vm.plug(net);
    const dev = await up(fn, '192.0.2.2/24');
    net.queue(1).hold();
    await vm.guest.attempt(`arping -c 1 -w 1 -I ${dev} 192.0.2.1`);
    await net.queue(1).nextRequest();
    const report = await vm.unplug(net);
    expect(report.removeReturned).toBe(true);
    expect(report).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  });

  test('four times over leaves interrupts and resources as they were', async () => {
    const resources = async (): Promise<string> => (await vm.guest.run(
      'cat /proc/iomem /proc/ioports; cut -d: -f1 /proc/interrupts; ls /sys/bus/pci/devices /sys/class/net /proc/irq')).stdout;
    const cycle = async (): Promise<void> => {
      const net = virtioNet({ peer: scriptedPeer({ ipv4: '192.0.2.1' }) });
      await up(await vm.plug(net), '192.0.2.2/24');
      await vm.guest.run('ping -c 1 192.0.2.1');
      expect(await vm.unplug(net)).toLeaveNothingBehind();
    };
    await cycle();
    const before = await resources();
    for (let n = 0; n < 4; n += 1) await cycle();
    expect(await resources()).toBe(before);
    await expect(vm).toHaveCleanLog();
  });
});
