// Two guests, a network card of ours in each, and the cable between them in this process: data both ways at once
// over two queue pairs and mergeable buffers, and what happens when one of the guests cannot keep up.
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { capture, netLink, q35, virtioNet, type LinkCounts, type NetLink, type NetPeer, type VirtioNet } from 'rootport';
import { useMachine, type TestMachine } from 'rootport/jest';

const machine = q35({ cpus: 2 });
const packages = ['iperf3'];
const [here, there] = [useMachine({ machine, packages }), useMachine({ machine, packages })];
const ADDRESSES = ['192.0.2.1', '192.0.2.2'] as const;
const MIB = 2 ** 20;

let directory: string;
beforeAll(async () => { directory = await mkdtemp(join(tmpdir(), 'rootport-two-machines-')); });
afterAll(async () => { await rm(directory, { recursive: true }); });

/** Plug a card of each guest, with addresses that the other knows without asking. Their interfaces. */
async function connect(cards: readonly [VirtioNet, VirtioNet], mtu: number): Promise<string[]> {
  const interfaces: string[] = [];
  for (const [i, vm] of [here, there].entries()) {
    const [card, other] = [cards[i], cards[1 - i]] as [VirtioNet, VirtioNet];
    const fn = await vm.plug(card);
    const dev = (await vm.guest.run(`ls ${fn.sysfs}/virtio*/net`)).stdout.trim();
    // With neither ARP nor IPv6 nothing is sent but what a test asks for.
    await vm.guest.run(
      `echo 1 >/proc/sys/net/ipv6/conf/${dev}/disable_ipv6; ip addr add ${ADDRESSES[i]}/24 dev ${dev} && ip link set ${dev} up mtu ${mtu}`
      + ` && arp -s ${ADDRESSES[1 - i]} ${other.mac}`);
    interfaces.push(dev);
  }
  return interfaces;
}

interface Stream {
  readonly from: TestMachine;
  readonly to: TestMachine;
  /** Of `from`, which serves. */
  readonly address: string;
  readonly port: number;
  /** The CPU that sends: its packets go on the queue pair of this number; and that receives. */
  readonly cpu: number;
  readonly mib: number;
}

/** Fetch random bytes over TCP; the checksums of what was sent and of what arrived. */
async function transfer({ from, to, address, port, cpu, mib }: Stream): Promise<[sent: string, arrived: string]> {
  const directory = `/tmp/www-${port}`;
  const { stdout: sent } = await from.guest.run(
    `mkdir ${directory} && dd if=/dev/urandom of=${directory}/file bs=1M count=${mib} 2>/dev/null && taskset -c ${cpu} httpd -p ${port} -h ${directory} && sha256sum <${directory}/file`,
    { timeoutMs: 60_000 });
  const { stdout: arrived } = await to.guest.run(`taskset -c ${cpu} wget -q -O - http://${address}:${port}/file | sha256sum`, { timeoutMs: 120_000 });
  await from.guest.run(`rm -r ${directory}`);
  return [sent, arrived];
}

/** What each card and each direction of the link counted, to count from. */
function tally(link: NetLink, cards: readonly [VirtioNet, VirtioNet]): { sent: number; carried: number; dropped: number; lost: number; received: number }[] {
  return link.counts.map(({ carried, dropped, lost }, i) => ({
    sent: cards[i]?.counts.transmitted.frames ?? 0, carried, dropped, lost, received: cards[1 - i]?.counts.received.frames ?? 0,
  }));
}

test('four TCP streams at once, two each way on a queue pair each, arrive as they were sent; no frame is lost, and all are captured', async () => {
  const link = netLink();
  const wire = capture(join(directory, 'wire.pcapng'));
  const cards = [virtioNet({ queuePairs: 2, peer: wire.tap(link.ends[0]) }), virtioNet({ queuePairs: 2, peer: link.ends[1] })] as const;
  await connect(cards, 4000);
  const before = tally(link, cards);
  const streams = [0, 1].flatMap((cpu) => [
    { from: here, to: there, address: ADDRESSES[0], port: 8000 + cpu, cpu, mib: 2 },
    { from: there, to: here, address: ADDRESSES[1], port: 8000 + cpu, cpu, mib: 2 },
  ]);
  for (const [sent, arrived] of await Promise.all(streams.map(transfer))) expect(arrived).toBe(sent);
  for (const vm of [here, there]) await vm.guest.run('killall httpd');

  for (const [i, after] of tally(link, cards).entries()) {
    const { sent, received } = { sent: after.sent - (before[i]?.sent ?? 0), received: after.received - (before[i]?.received ?? 0) };
    expect(received).toBe(sent);
    expect([after.dropped, after.lost, link.counts[i]?.waiting]).toEqual([before[i]?.dropped, before[i]?.lost, 0]);
  }
  for (const card of cards) {
    expect(card.livePairs).toBe(2);
    expect(card.refused).toEqual([]);
    const completed = (queue: number): number => card.queue(queue).counts.completed;
    // Each CPU's SYN goes on its own queue and is answered on the same pair. Where a stream's data go is TCP's choice: it
    // changes the queue only when nothing of the socket is under way (ooo_okay, net/ipv4/tcp_output.c).
    for (const queue of [0, 1, 2, 3]) expect(completed(queue)).toBeGreaterThan(0);
    // 4000 bytes take more than one of the driver's buffers.
    expect(completed(0) + completed(2)).toBeGreaterThan(1.2 * card.counts.received.frames);
  }
  for (const [i, vm] of [here, there].entries()) {
    expect(await vm.unplug(cards[i] as VirtioNet)).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  }
  expect(wire.frames).toBe(cards[0].counts.transmitted.frames + cards[0].counts.received.frames);
  expect((await stat(wire.path)).size).toBeGreaterThan(8 * MIB);
});

interface IperfSum {
  readonly bytes: number;
  readonly packets?: number;
  readonly lost_packets?: number;
}

test('iperf3 from guest to guest: TCP both ways at once over both pairs, reversed, and UDP of which no packet is lost', async () => {
  const link = netLink();
  const cards = [virtioNet({ queuePairs: 2, peer: link.ends[0] }), virtioNet({ queuePairs: 2, peer: link.ends[1] })] as const;
  await connect(cards, 1500);
  const iperf = async (options: string): Promise<Record<string, IperfSum>> => {
    const server = await there.guest.start('iperf3 -s -1');
    // 0x1451; its predecessor's connections are there too, in TIME_WAIT.
    await there.guest.until("grep -q ':1451 0*:0000 0A' /proc/net/tcp*", 'iperf3 to listen on port 5201', 10_000);
    const { stdout } = await here.guest.run(`iperf3 -c ${ADDRESSES[1]} --json ${options}`, { timeoutMs: 60_000 });
    await server.wait();
    return (JSON.parse(stdout) as { end: Record<string, IperfSum> }).end;
  };
  /** What went over the wire in each direction since, bytes. */
  const wire = (): number[] => cards.map(({ counts }) => counts.transmitted.bytes);
  const [LEAST, HEADERS] = [2 * MIB, 14 + 20 + 20];

  const before = wire();
  const both = await iperf(`--bidir -P 2 -n ${LEAST}`);
  for (const [i, sum] of [both.sum_received, both.sum_received_bidir_reverse].entries()) {
    expect(sum.bytes).toBeGreaterThanOrEqual(LEAST / 8); // the one that is done first ends the other
    expect(wire()[i] - before[i]).toBeGreaterThan(sum.bytes + HEADERS * sum.bytes / 1500);
  }
  const reversed = wire();
  const { sum_received: back } = await iperf(`--reverse -n ${LEAST}`);
  expect(back.bytes).toBeGreaterThanOrEqual(LEAST);
  expect(wire()[1] - reversed[1]).toBeGreaterThan(back.bytes);
  const { sum: udp } = await iperf(`-u -b 8M -l 1400 -n ${1400 * 500}`);
  expect(udp).toMatchObject({ bytes: 1400 * (udp.packets ?? 0), lost_packets: 0 });
  expect(udp.packets).toBeGreaterThanOrEqual(500);

  for (const { dropped, lost } of link.counts) expect([dropped, lost]).toEqual([0, 0]);
  for (const [i, vm] of [here, there].entries()) {
    const card = cards[i] as VirtioNet;
    expect(card.refused).toEqual([]);
    expect(await vm.unplug(card)).toLeaveNothingBehind();
    await expect(vm).toHaveCleanLog();
  }
});

describe('when one guest\'s receive queue stands still, of 40 pings', () => {
  const OUT_ECHOS = "awk '/^Icmp: In/ { for (i = 1; i <= NF; i++) if ($i == \"OutEchos\") at = i; next } /^Icmp:/ { print $at }' /proc/net/snmp";

  /**
   * Hold the second guest's receive queue, ping it, and release it when all pings were sent and `enough` holds of what the
   * link counted. What the first card had taken of its guest by then, and the packets that the guests received in the end.
   */
  async function pingAtRest(link: NetLink, enough: (counts: LinkCounts) => boolean): Promise<{ taken: number; received: number[] }> {
    const [end] = link.ends;
    let reached: () => void = () => undefined;
    const standing = new Promise<void>((resolve) => { reached = resolve; });
    const watching: NetPeer = {
      ...end,
      receive(frame, port, pair) {
        end.receive(frame, port, pair);
        if (enough(link.counts[0])) reached();
      },
    };
    const cards = [virtioNet({ peer: watching }), virtioNet({ peer: link.ends[1] })] as const;
    const interfaces = await connect(cards, 1500);
    cards[1].queue(0).hold();
    const before = Number((await here.guest.run(OUT_ECHOS)).stdout);
    const ping = await here.guest.start(`ping -c 40 -i 0.02 -W 2 ${ADDRESSES[1]}`);
    await standing;
    await here.guest.until(`[ "$(${OUT_ECHOS})" = ${before + 40} ]`, '40 pings to be sent', 20_000);
    const taken = cards[0].counts.transmitted.frames;
    cards[1].queue(0).release();
    await ping.settled({ timeoutMs: 60_000 });
    // Not what ping says: its socket has room for a dozen replies at once.
    const received = await Promise.all([here, there].map(async ({ guest }, i) =>
      Number((await guest.run(`cat /sys/class/net/${interfaces[i]}/statistics/rx_packets`)).stdout)));
    return { taken, received };
  }

  test('none is lost: some wait in the link, the rest in the sending driver\'s ring', async () => {
    const link = netLink({ queueFrames: 16 });
    expect(await pingAtRest(link, ({ pauses }) => pauses === 1)).toEqual({ taken: 16, received: [40, 40] });
    expect(link.counts[0]).toMatchObject({ carried: 40, dropped: 0, lost: 0, waiting: 0, pauses: 1 });
    await expect(here).toHaveCleanLog();
  });

  test('on a link that drops those are lost that have no place, and counted', async () => {
    const link = netLink({ queueFrames: 8, whenFull: 'drop' });
    expect(await pingAtRest(link, ({ dropped }) => dropped === 32)).toEqual({ taken: 40, received: [8, 8] });
    expect(link.counts[0]).toMatchObject({ carried: 8, dropped: 32, lost: 0, waiting: 0, pauses: 0 });
    await expect(here).toHaveCleanLog();
  });
});
