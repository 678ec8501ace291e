import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { forwardedPort, parseFlatViews, parseUsernet, rangesWithin, viewOf } from '../../src/qemu/memory-map.ts';

const mtree = readFileSync(new URL('../fixtures/hmp/qemu10.0-info-mtree-f.txt', import.meta.url), 'utf8');

describe('parseFlatViews of QEMU 10.0 with a dozen PCI devices', () => {
  const views = parseFlatViews(mtree);

  test('finds every view and every range of the text', () => {
    expect(views).toHaveLength(mtree.match(/^ *FlatView #/gm)?.length ?? 0);
    const ranges = views.reduce((sum, view) => sum + view.ranges.length, 0);
    expect(ranges).toBe(mtree.match(/^ *[0-9a-f]{16}-[0-9a-f]{16} /gm)?.length);
    const spaces = views.reduce((sum, view) => sum + view.addressSpaces.length, 0);
    expect(spaces).toBe(mtree.match(/^ *AS "/gm)?.length);
  });

  test('the memory view maps edu where lspci sees it, with its size', () => {
    const memory = viewOf(views, 'memory');
    expect(memory?.root).toBe('system');
    expect(memory?.ranges.filter(({ name }) => name === 'edu-mmio')).toEqual([
      { start: 0xfe800000n, end: 0xfe8fffffn, sizeBytes: 0x100000n, priority: 1, kind: 'i/o', name: 'edu-mmio', offsetBytes: 0n },
    ]);
  });

  test('an offset into a region is read off its name', () => {
    expect(viewOf(views, 'cpu-memory-0')?.ranges.find(({ start }) => start === 0xc1000n)).toMatchObject({ kind: 'ram', name: 'pc.ram', offsetBytes: 0xc1000n });
  });

  test('rangesWithin gives what a BAR reaches: the MSI-X table and PBA of the modern virtio device', () => {
    const memory = viewOf(views, 'memory');
    const found = memory === undefined ? [] : rangesWithin(memory, 0xfe600000n, 0x1000n);
    expect(found.map(({ name, start }) => [name, start])).toEqual([['msix-table', 0xfe600000n], ['msix-pba', 0xfe600800n]]);
  });

  test('the I/O view holds the ports', () => {
    expect(viewOf(views, 'I/O')?.ranges.some(({ name }) => name === 'serial')).toBe(true);
  });
});

test('parseUsernet reads the forwards of QEMU 7.2, and forwardedPort finds the one to SSH', () => {
  const connections = parseUsernet(
    'Hub -1 (net0):\r\n' +
      '  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n' +
      '  TCP[HOST_FORWARD]   3       127.0.0.1 35799       10.0.2.15    22     0     0\r\n' +
      '  TCP[ESTABLISHED]   17       127.0.0.1 35799       10.0.2.15    22     0     0\r\n' +
      '  UDP[236 sec]       14               *  5353       10.0.2.15    53     0     0\r\n' +
      '  ICMP[10 sec]       15       10.0.2.15     -        10.0.2.2     -     0     0\r\n',
  );
  expect(connections.map(({ protocol, state }) => `${protocol} ${state}`)).toEqual(['TCP HOST_FORWARD', 'TCP ESTABLISHED', 'UDP 236 sec', 'ICMP 10 sec']);
  expect(connections[0]).toEqual({
    protocol: 'TCP',
    state: 'HOST_FORWARD',
    fd: 3,
    sourceAddress: '127.0.0.1',
    sourcePort: 35799,
    destinationAddress: '10.0.2.15',
    destinationPort: 22,
  });
  expect(forwardedPort(connections, 22)).toBe(35799);
  expect(forwardedPort(connections, 53)).toBeUndefined();
});

test('any text parses to something, without an error', () => {
  fc.assert(fc.property(fc.string(), fc.string(), (a, b) => {
    expect(Array.isArray(parseFlatViews(`FlatView #0\n${a}\n 00-0f (prio ${b}): x\n`))).toBe(true);
    expect(Array.isArray(parseUsernet(`TCP[${a}] ${b}`))).toBe(true);
  }));
});
