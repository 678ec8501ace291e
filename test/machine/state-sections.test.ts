// What a saved state says is in it, of streams made up here; what QEMU writes is looked at by kept-scene.vm.test.ts.
import { expect, test } from '@jest/globals';
import { ProtocolError } from '../../src/errors.ts';
import { functionsWithout, sectionNames } from '../../src/machine/state-sections.ts';
import type { QueryPciBus, QueryPciDevice } from '../../src/pci/query-pci.ts';

/** A stream's end: a description of these sections behind some bytes. */
function stream(names: readonly string[], before = Buffer.from('QEVM section data')): Buffer {
  const text = Buffer.from(JSON.stringify({ page_size: 4096, devices: names.map((name) => ({ name, instance_id: 0 })) }));
  const head = Buffer.alloc(5);
  head[0] = 6;
  head.writeUInt32BE(text.length, 1);
  return Buffer.concat([before, head, text]);
}

const fn = (slot: number, name: string, behind?: readonly QueryPciDevice[]): QueryPciDevice => ({
  bus: 0, slot, function: 0, id: { vendor: 0x1234, device: 0x11e8 }, class_info: { class: 0xff }, irq_pin: 0, qdev_id: name, regions: [],
  ...(behind === undefined ? {} : { pci_bridge: { bus: { number: 0, secondary: 1, subordinate: 1 }, devices: behind } }),
});

test('the sections are those of the description at the stream\'s end', () => {
  expect(sectionNames(stream(['timer', '0000:00:10.0:00.0/vhost-user-blk']))).toEqual(['timer', '0000:00:10.0:00.0/vhost-user-blk']);
});

test('a byte that looks like the head of a description is none, unless it announces just what follows', () => {
  const misleading = Buffer.alloc(64, 6);
  expect(sectionNames(stream(['\u0006\u0006\u0006 timer'], misleading))).toEqual(['\u0006\u0006\u0006 timer']);
});

test.each([['is empty', Buffer.alloc(0)], ['is cut short', stream(['timer']).subarray(0, -1)], ['ends in no JSON', Buffer.from([6, 0, 0, 0, 2, 0x7b, 0x7b])]])('a stream that %s is a ProtocolError', (_, bytes) => {
  expect(() => sectionNames(bytes)).toThrow(ProtocolError);
});

test('functions without a section are told by QEMU\'s id, those without one by address and ids', () => {
  const buses: QueryPciBus[] = [{ bus: 0, devices: [fn(0, ''), fn(16, 'rp1', [fn(0, 'dev0')]), fn(17, 'rp2', [fn(0, 'dev1')]), fn(31, '')] }];
  const sections = ['0000:00:00.0/mch', '0000:00:10.0/pcie-root-port', '0000:00:11.0/pcie-root-port', '0000:00:11.0:00.0/virtio-net'];
  expect(functionsWithout(sections, buses)).toEqual(['dev0', '0000:00:1f.0 1234:11e8']);
});
