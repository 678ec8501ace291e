// The matchers on the bare tier: BARs and MSI-X as config space and QEMU show them, deliveries (of MSI too) as the device and
// guest RAM do, and a guest's word nowhere, which every table and drawing says. Each kind of claim is seen to hold and to fail.
import { readFileSync } from 'node:fs';
import { beforeEach, describe, expect, test } from '@jest/globals';
import { EDU, edu, ivshmem, q35, type BareFunction, type MsixMessages } from 'rootport';
import { useBare } from 'rootport/jest';

const VECTORS = 5;

describe.each(['7.2', '10.0'])('QEMU %s', (qemu) => {
  const device = ivshmem({ vectors: VECTORS });
  const vm = useBare({ qemu, machine: q35({ ports: 2 }), devices: [device] });
  let fn: BareFunction;
  let msix: MsixMessages;
  beforeEach(async () => {
    fn = await vm.functionOf(device);
    msix = await fn.enableMsix();
  });
  /** What a claim that must fail says, without Jest's colours. */
  const failing = (claim: Promise<void>): Promise<string> => claim.then(() => '(it holds)', (error: Error) => error.message.replace(/\x1b\[[0-9;]*m/g, ''));
  const fire = async (vector: number): Promise<void> => {
    device.fire(vector);
    await msix.next(vector);
  };

  test('a BAR has its size, type and address, and no other', async () => {
    const { address } = await fn.bar(2);
    await expect(fn).toHaveBar({ bar: 2, sizeBytes: 2 ** 20, type: 'mem64', prefetchable: true });
    await expect(fn).toBeMappedAt({ bar: 2, address });
    expect(await failing(expect(fn).toHaveBar({ bar: 2, sizeBytes: 2 ** 21 }))).toMatch(/x {2}VMM: query-pci +mem64 +yes +0x100000 .*<- size/);
    expect(await failing(expect(fn).toBeMappedAt({ bar: 2, address: address + 4096n }))).toMatch(/\? {2}guest: kernel's resource +missing: there is no operating system/);
  });

  test('MSI-X has its vectors and its table, by config space and the memory map', async () => {
    await expect(fn).toHaveMsix({ vectors: VECTORS, tableBar: 1, pbaBar: 1 });
    expect(await failing(expect(fn).toHaveMsix({ vectors: VECTORS + 1 }))).toMatch(/x {2}guest: config space .*\n +\? +guest: lspci +missing: there is no operating system\n +x +VMM: info mtree/);
  });

  test('vectors that are fired are delivered, the rest did not move, and what the claim rests on is said', async () => {
    const since = await vm.mark(fn);
    for (const vector of [1, 1, 1, 3]) await fire(vector);
    await expect(fn).toHaveDelivered([{ vector: 1, exactly: 3 }, { vector: 3, exactly: 1 }], { since, others: 'none' });
    const ledger = await vm.ledger(fn, since);
    expect(ledger).toMatchObject({ tier: 'bare', mode: 'msix', interrupted: undefined });
    expect(ledger.rows.map(({ fired, sent }) => [fired, sent])).toEqual([[0, 0], [3, 3], [0, 0], [1, 1], [0, 0]]);
    const text = await failing(expect(fn).toHaveDelivered({ vector: 1, exactly: 2, since, timeoutMs: 200 }));
    expect(text).toMatch(/x {2}1 +3 +3 +- +no +no +- +<- claimed: exactly 2/);
    expect(text).toMatch(/no guest handles them here: the claim rests on the device and on the messages in guest RAM/);
    expect(await failing(expect(fn).toHaveDelivered({ vector: 1, since, others: 'none', timeoutMs: 200 }))).toMatch(/x {2}3 .*<- claimed: no other vector moves/);
  });

  test('a claim that fails leaves a drawing: what the device fired and the looks that found the messages, and that no guest handles them', async () => {
    const since = await vm.mark(fn);
    await fire(1);
    await fire(1);
    const text = await failing(expect(fn).toHaveDelivered({ vector: 1, exactly: 3, since, timeoutMs: 100 }));
    const svg = readFileSync(/drawn in time: (\S+\.svg)/.exec(text)?.[1] ?? 'no drawing', 'utf8');
    const events = [...svg.matchAll(/vector 1 (fired|sent) at (-?[\d.]+) ms/g)].map(([, what, at]) => ({ what, at: Number(at) }));
    expect(events.map(({ what }) => what).sort()).toEqual(['fired', 'fired', 'sent', 'sent']);
    for (const { at } of events) expect(at).toBeGreaterThanOrEqual(0);
    expect(svg).not.toContain(' handled at ');
    expect(svg).toContain('guest: there is no operating system');
    expect(svg).toContain('VMM: messages found in guest RAM, each between two looks at its slot');
  });

  test('MSI has its ledger, too: messages found in RAM by their number, and what QEMU\'s own device fired is not known', async () => {
    const other = edu();
    const msiFn = await vm.plug(other);
    const msi = await msiFn.enableMsi();
    const since = await vm.mark(msiFn);
    for (let times = 1; times <= 2; times += 1) {
      await msiFn.memWrite(0, EDU.INTERRUPT_RAISE, 4, 1n);
      expect(await msi.next()).toBe(0);
      await msiFn.memWrite(0, EDU.INTERRUPT_ACKNOWLEDGE, 4, 1n);
    }
    await expect(msiFn).toHaveDelivered({ vector: 0, exactly: 2, since });
    expect(await vm.ledger(msiFn, since)).toMatchObject({ tier: 'bare', mode: 'msi', vectors: 1, interrupted: undefined, rows: [{ sent: 2, fired: undefined }] });
    expect(await failing(expect(msiFn).toHaveDelivered({ vector: 0, exactly: 1, since, timeoutMs: 100 })))
      .toMatch(/x {2}0 +- +2 .*<- claimed: exactly 1\n[^]*device: fired is missing: QEMU's own model is the device\n[^]*drawn in time: /);
    await expect(expect(msiFn).toHaveDelivered({ vector: 1, since })).rejects.toThrow(/has MSI vectors 0 to 0; 1 is none/);
    expect(await vm.unplug(other)).toLeaveNothingBehind();
  });

  test('a message that nobody has taken from RAM counts, once', async () => {
    const since = await vm.mark(fn);
    device.fire(2);
    device.fire(2);
    await expect(fn).toHaveDelivered({ vector: 2, exactly: 2, since });
    expect((await vm.ledger(fn, since)).rows[2]).toMatchObject({ fired: 2, sent: 1 });
    await msix.next(2);
    expect((await vm.ledger(fn, since)).rows[2]).toMatchObject({ fired: 2, sent: 1 });
  });

  test('a masked vector is pending: no fault of others\' claims, and its own does not hold', async () => {
    const since = await vm.mark(fn);
    await msix.mask(4);
    device.fire(4);
    await fire(0);
    await expect(fn).toHaveDelivered({ vector: 0, exactly: 1, since });
    expect(await failing(expect(fn).toHaveDelivered({ vector: 4, since, timeoutMs: 200 })))
      .toMatch(/x {2}4 +1 +0 +- +yes +yes +- +<- claimed: at least 1; it is still pending/);
    await msix.mask(4, false);
    await expect(fn).toHaveDelivered([{ vector: 0, exactly: 1 }, { vector: 4, exactly: 1 }], { since });
  });

  test('a vector whose message goes to another\'s address fails every claim, and its row is marked', async () => {
    await msix.point(1, 2);
    const since = await vm.mark(fn);
    device.fire(1);
    await msix.next(2);
    await fire(3);
    // RAM cannot tell whose message it was; the device says that vector 1 was fired: nothing contradicts it.
    await expect(fn).toHaveDelivered({ vector: 3, exactly: 1, since });
    expect(await failing(expect(fn).toHaveDelivered({ vector: 1, since, timeoutMs: 200 }))).toMatch(/x {2}1 +1 +as 2 .*<- claimed: at least 1, and the VMM does not tell/);
    await msix.point(1, 1);
  });

  test.each([
    ['MSI-X', (enabled: boolean) => msix.control({ enabled, functionMasked: false })],
    ['bus mastering', (enabled: boolean) => fn.command({ BUS_MASTER: enabled })],
  ])('a fire that is lost because %s was off is held against nobody, and that it was off is said', async (_, turn) => {
    const since = await vm.mark(fn);
    await turn(false);
    device.fire(1);
    await vm.qtest.settle();
    await turn(true);
    await fire(3);
    await expect(fn).toHaveDelivered({ vector: 3, exactly: 1, since });
    expect(await failing(expect(fn).toHaveDelivered({ vector: 1, since, timeoutMs: 200 })))
      .toMatch(/x {2}1 +1 +0 .*<- claimed: at least 1\n[^]*not checked: whether the other vectors add up \(MSI-X \(or MSI\) or bus mastering was off meanwhile\)/);
  });

  test('a fire that goes to nowhere in RAM is never sent, whatever is claimed of others', async () => {
    await msix.pointAt(1, msix.slots.addressOf(1), 0); // a message of zero leaves no trace in its slot
    const since = await vm.mark(fn);
    device.fire(1);
    await fire(3);
    expect(await failing(expect(fn).toHaveDelivered({ vector: 3, exactly: 1, since, timeoutMs: 200 }))).toMatch(/x {2}1 +1 +0 .*<- fired, and never sent/);
    await msix.point(1, 1);
  });

  test('a device that is unplugged leaves nothing, and a report with something left fails', async () => {
    const other = ivshmem();
    await vm.plug(other);
    const report = await vm.unplug(other);
    expect(report).toLeaveNothingBehind();
    expect(() => expect({ ...report, leftovers: [{ witness: 'vmm', where: 'config space', what: 'it answers' }] }).toLeaveNothingBehind())
      .toThrow(/VMM: config space +left behind .*it answers/);
  });
});
