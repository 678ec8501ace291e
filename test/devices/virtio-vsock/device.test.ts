import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { CONNECTIONS_MAX, REPLIES_MAX } from '../../../src/devices/virtio-vsock/device.ts';
import type { VsockConnection } from '../../../src/devices/virtio-vsock/connection.ts';
import { VIRTIO_VSOCK_OP as OP, vsockConfig, vsockHeader } from '../../../src/devices/virtio-vsock/layout.ts';
import { BUFFER_BYTES, GUEST_CID, VsockDriver } from './vsock-driver.ts';

const [REQUEST, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST] = [
  OP.VIRTIO_VSOCK_OP_REQUEST, OP.VIRTIO_VSOCK_OP_RESPONSE, OP.VIRTIO_VSOCK_OP_RST, OP.VIRTIO_VSOCK_OP_SHUTDOWN,
  OP.VIRTIO_VSOCK_OP_RW, OP.VIRTIO_VSOCK_OP_CREDIT_UPDATE, OP.VIRTIO_VSOCK_OP_CREDIT_REQUEST];
const soon = { timeoutMs: 5 };

function connected(options?: { bufferBytes?: number; rxBuffers?: number }): { driver: VsockDriver; connection: VsockConnection } {
  const driver = new VsockDriver(options);
  let connection: VsockConnection | undefined;
  driver.device.listen(1234, (one) => { connection = one; });
  driver.send(REQUEST);
  driver.received();
  return { driver, connection: connection as unknown as VsockConnection };
}

describe('the layouts', () => {
  test('are as long as the spec has them', () => {
    expect([vsockHeader.sizeBytes, vsockConfig.sizeBytes]).toEqual([44, 8]);
    expect(vsockConfig.decode(new VsockDriver().device.config())).toEqual({ guest_cid: BigInt(GUEST_CID) });
  });
});

describe('connections from the guest', () => {
  test('to a port that somebody listens on are taken, and told the receive buffer', () => {
    const driver = new VsockDriver();
    const taken: VsockConnection[] = [];
    driver.device.listen(1234, (connection) => taken.push(connection));
    driver.send(REQUEST);
    expect(driver.received()).toEqual([{
      header: expect.objectContaining({ src_cid: 2n, dst_cid: 3n, src_port: 1234, dst_port: 77, op: RESPONSE, type: 1, len: 0, buf_alloc: BUFFER_BYTES, fwd_cnt: 0 }),
      payload: Buffer.alloc(0),
    }]);
    expect(taken.map(({ state, hostPort, guestPort }) => [state, hostPort, guestPort])).toEqual([['open', 1234, 77]]);
  });

  test('to another port are refused', () => {
    const driver = new VsockDriver();
    driver.send(REQUEST);
    expect(driver.received().map(({ header: { op, src_port, dst_port } }) => [op, src_port, dst_port])).toEqual([[RST, 1234, 77]]);
  });

  test('are refused beyond the most there may be', () => {
    const driver = new VsockDriver();
    driver.device.listen(1234, () => undefined);
    for (let port = 0; port <= CONNECTIONS_MAX; port += 1) {
      driver.send(REQUEST, { src_port: port });
      expect(driver.received().map(({ header }) => header.op)).toEqual([port < CONNECTIONS_MAX ? RESPONSE : RST]);
    }
    expect(driver.device.connections).toHaveLength(CONNECTIONS_MAX);
  });

  test('on ports that are connected already break the old one', async () => {
    const { driver, connection } = connected();
    driver.send(REQUEST);
    expect(driver.received().map(({ header }) => header.op)).toEqual([RST]);
    await expect(connection.read(soon)).rejects.toThrow('connected already');
  });
});

describe('connections to the guest', () => {
  test('are open once the guest answers, and refused when it resets', async () => {
    const driver = new VsockDriver();
    const [one, two] = [driver.device.connect(50), driver.device.connect(51)];
    const [first, second] = driver.received();
    expect([first, second].map(({ header: { op, dst_port } }) => [op, dst_port])).toEqual([[REQUEST, 50], [REQUEST, 51]]);
    driver.send(RESPONSE, { src_port: 50, dst_port: first.header.src_port });
    driver.send(RST, { src_port: 51, dst_port: second.header.src_port });
    await one.opened(soon);
    await expect(two.opened(soon)).rejects.toThrow('refused a connection to its port 51');
    expect(driver.device.connections.map(({ guestPort }) => guestPort)).toEqual([50]);
  });
});

describe('bytes from the guest', () => {
  test('are read in order, whatever packets they came in', async () => {
    const { driver, connection } = connected();
    driver.send(RW, {}, Buffer.from('abc'));
    driver.send(RW, {}, Buffer.from('defg'));
    expect((await connection.readExactly(5, soon)).toString()).toBe('abcde');
    expect((await connection.read(soon))?.toString()).toBe('fg');
    await expect(connection.read(soon)).rejects.toThrow('bytes from port 77');
  });

  test('are acknowledged once half of the buffer was read, and when the guest asks', async () => {
    const { driver, connection } = connected();
    driver.send(RW, {}, Buffer.alloc(600));
    await connection.readExactly(499, soon);
    expect(driver.received()).toEqual([]);
    driver.send(CREDIT_REQUEST);
    expect(driver.received().map(({ header: { op, fwd_cnt } }) => [op, fwd_cnt])).toEqual([[CREDIT_UPDATE, 499]]);
    driver.send(RW, {}, Buffer.alloc(899));
    await connection.readExactly(500, soon);
    expect(driver.received().map(({ header: { op, fwd_cnt } }) => [op, fwd_cnt])).toEqual([[CREDIT_UPDATE, 999]]);
  });

  test('beyond the credit break the connection, and are not kept', async () => {
    const { driver, connection } = connected();
    driver.send(RW, {}, Buffer.alloc(BUFFER_BYTES));
    driver.send(RW, {}, Buffer.alloc(1));
    expect(connection.unreadBytes).toBe(BUFFER_BYTES);
    expect(driver.received().map(({ header }) => header.op)).toEqual([RST]);
    await connection.readExactly(BUFFER_BYTES, soon);
    await expect(connection.read(soon)).rejects.toThrow('exceeds what the guest may send');
    expect(driver.device.refused).toHaveLength(1);
  });

  test('in a packet longer than the buffer are not even copied', () => {
    const { driver } = connected();
    driver.send(RW, {}, Buffer.alloc(BUFFER_BYTES + 1));
    expect(driver.received().map(({ header }) => header.op)).toEqual([RST]);
    expect(driver.tx.failures).toEqual([]);
  });

  test('after the guest said that it sends no more break the connection', () => {
    const { driver } = connected();
    driver.send(SHUTDOWN, { flags: 2 });
    expect(driver.received()).toEqual([]);
    driver.send(RW, {}, Buffer.from('x'));
    expect(driver.received().map(({ header }) => header.op)).toEqual([RST]);
  });
});

describe('bytes to the guest', () => {
  test('go in packets that fit into its buffers, no more than its credit, and it is asked for more once', async () => {
    const { driver, connection } = connected({ rxBuffers: 8 });
    const written = connection.write(Buffer.alloc(300, 7), { timeoutMs: 1000 });
    expect(driver.received().map(({ header: { op, len }, payload }) => [op, len, payload.length]))
      .toEqual([[RW, 100, 100], [RW, 100, 100], [RW, 50, 50], [CREDIT_REQUEST, 0, 0]]);
    expect([connection.credit, connection.unsentBytes]).toEqual([0, 50]);
    driver.send(CREDIT_UPDATE); // which tells nothing new
    expect(driver.received()).toEqual([]);
    driver.send(CREDIT_UPDATE, { fwd_cnt: 20 });
    expect(driver.received().map(({ header: { op, len } }) => [op, len])).toEqual([[RW, 20], [CREDIT_REQUEST, 0]]);
    driver.send(CREDIT_UPDATE, { fwd_cnt: 270 });
    expect(driver.received().map(({ header: { op, len } }) => [op, len])).toEqual([[RW, 30]]);
    await written;
  });

  test('wait for receive buffers, and take none when there is nothing to send', async () => {
    const { driver, connection } = connected({ rxBuffers: 1 });
    driver.received();
    const written = connection.write(Buffer.alloc(150), { timeoutMs: 1000 });
    expect(driver.received({ giveAgain: false }).map(({ header }) => header.len)).toEqual([100]);
    expect(connection.unsentBytes).toBe(50);
    driver.give(3);
    expect(driver.received({ giveAgain: false }).map(({ header }) => header.len)).toEqual([50]);
    await written;
    expect(driver.rx.freeDescriptors).toBe(6); // two buffers are still the device's to fill
  });

  test('of two connections take turns', async () => {
    const driver = new VsockDriver({ rxBuffers: 2 });
    const all: VsockConnection[] = [];
    driver.device.listen(1234, (one) => all.push(one));
    driver.send(REQUEST, { src_port: 1 });
    driver.send(REQUEST, { src_port: 2 });
    driver.received({ giveAgain: false });
    const writes = all.map((one) => one.write(Buffer.alloc(200), { timeoutMs: 1000 }));
    driver.give(4);
    expect(driver.received().map(({ header }) => header.dst_port)).toEqual([1, 2, 1, 2]);
    await Promise.all(writes);
  });

  test('are lost with the connection, and the write says how many went', async () => {
    const { driver, connection } = connected({ rxBuffers: 1 });
    driver.received();
    const written = connection.write(Buffer.alloc(150), { timeoutMs: 1000 });
    driver.send(SHUTDOWN, { flags: 1 });
    await expect(written).rejects.toThrow('took 100 of 150 bytes, and receives no more');
  });

  test('that the guest claims to have consumed and never got break the connection', () => {
    const { driver } = connected();
    driver.send(CREDIT_UPDATE, { fwd_cnt: 1 });
    expect(driver.received().map(({ header }) => header.op)).toEqual([RST]);
  });

  test('go on as the guest consumes them, step by step', async () => {
    const { driver, connection } = connected({ rxBuffers: 8 });
    let sent = 0;
    const step = async (): Promise<void> => {
      await connection.write(Buffer.alloc(100), soon);
      sent += 100;
      driver.send(CREDIT_UPDATE, { fwd_cnt: sent });
      driver.received();
    };
    for (let i = 0; i < 5; i += 1) await step();
    expect([connection.credit, connection.state]).toEqual([250, 'open']);
  });
});

describe('ends', () => {
  test('end() says so after what was written; the rest can still be read', async () => {
    const { driver, connection } = connected();
    const written = connection.write('abc', soon);
    connection.end();
    await written;
    expect(driver.received().map(({ header: { op, flags } }) => [op, flags])).toEqual([[RW, 0], [SHUTDOWN, 2]]);
    await expect(connection.write('more')).rejects.toThrow('after end()');
    driver.send(RW, {}, Buffer.from('late'));
    driver.send(SHUTDOWN, { flags: 3 });
    expect(driver.received().map(({ header }) => header.op)).toEqual([RST]);
    expect((await connection.readToEnd(soon)).toString()).toBe('late');
    expect(driver.device.connections).toEqual([]);
  });

  test('close() waits for the guest\'s RST, and resets when none comes', async () => {
    const one = connected();
    const closing = one.connection.close(soon);
    expect(one.driver.received().map(({ header: { op, flags } }) => [op, flags])).toEqual([[SHUTDOWN, 3]]);
    one.driver.send(RST);
    await closing;
    expect(one.driver.received()).toEqual([]);
    const two = connected();
    await two.connection.close({ timeoutMs: 1 });
    expect(two.driver.received().map(({ header }) => header.op)).toEqual([SHUTDOWN, RST]);
    expect(two.driver.log).toEqual([expect.stringContaining('did not answer a shutdown')]);
  });

  test('a RST out of nowhere is an error for who reads and writes, once what came was read', async () => {
    const { driver, connection } = connected();
    driver.send(RW, {}, Buffer.from('abc'));
    driver.send(RST);
    expect((await connection.read(soon))?.toString()).toBe('abc');
    await expect(connection.read(soon)).rejects.toThrow('reset the connection');
    await expect(connection.write('x', soon)).rejects.toThrow('reset the connection');
  });

  test('destroy() resets, and those who wait hear of it', async () => {
    const { driver, connection } = connected();
    const reading = expect(connection.read(soon)).rejects.toThrow('was destroyed');
    connection.destroy();
    await reading;
    expect(driver.received().map(({ header }) => header.op)).toEqual([RST]);
  });

  test('a reset of the device ends every connection, and listeners stay', async () => {
    const { driver, connection } = connected();
    driver.device.reset();
    await expect(connection.read(soon)).rejects.toThrow('the driver reset the device');
    driver.send(REQUEST);
    expect(driver.device.connections).toHaveLength(1);
  });
});

describe('a hostile driver', () => {
  test.each([
    ['a packet shorter than a header', [new Uint8Array(43)], []],
    ['a packet with a writable part', [new Uint8Array(44)], [4]],
    ['a header that says less than there is', [vsockHeader.encode({ len: 1 }), new Uint8Array(2)], []],
    ['a header that says more than there is', [vsockHeader.encode({ len: 2 ** 32 - 1 })], []],
  ])('breaks the queue with %s', (_, readable, writable) => {
    const { driver } = connected();
    driver.tx.submit(readable, writable);
    expect(driver.tx.failures.map(({ message }) => message)).toEqual([expect.stringContaining('5.10.6')]);
  });

  test.each([['a readable part', [new Uint8Array(1)], [144]], ['no room for a header', [], [43]]] as const)(
    'breaks the queue with a receive buffer that has %s', (_, readable, writable) => {
      const driver = new VsockDriver({ rxBuffers: 0 });
      driver.send(REQUEST); // answered RST
      driver.rx.submit(readable, writable);
      expect(driver.rx.failures).toHaveLength(1);
    });

  test('breaks the queue with a receive buffer that has no room for a byte of payload', () => {
    const { driver, connection } = connected({ rxBuffers: 1 });
    driver.received({ giveAgain: false });
    driver.rx.collect();
    void connection.write('abc', soon).catch(() => undefined);
    driver.received({ giveAgain: false });
    void connection.write('abc', soon).catch(() => undefined);
    driver.rx.submit([], [44]);
    expect(driver.rx.failures).toHaveLength(1);
  });

  test('that gives no receive buffers is not listened to once many replies wait, and is again when it does', () => {
    const driver = new VsockDriver({ rxBuffers: 0 });
    for (let i = 0; i < REPLIES_MAX; i += 1) driver.send(RW, {}, Buffer.from('x'));
    expect(driver.tx.freeDescriptors).toBe(8);
    driver.send(RW);
    expect(driver.tx.freeDescriptors).toBe(7); // it waits in the ring
    driver.give(1);
    driver.tx.collect();
    expect(driver.tx.freeDescriptors).toBe(8);
    expect(driver.received()).toHaveLength(1);
  });

  test.each([
    ['another context of its own', { src_cid: 4n }, []],
    ['a context that is not the host', { dst_cid: 5n }, []],
    ['a type that is no stream', { type: 9 }, [[RST, 9]]],
    ['an operation that there is not', { op: 99 }, [[RST, 1]]],
  ])('with %s is refused', (_, fields, answers) => {
    const driver = new VsockDriver();
    driver.send(RW, fields);
    expect(driver.received().map(({ header: { op, type } }) => [op, type])).toEqual(answers);
    expect(driver.device.refused).toHaveLength(1);
  });

  test('with a RST for nothing is not answered, lest two sides reset each other for ever', () => {
    const driver = new VsockDriver();
    driver.send(RST);
    driver.send(RST, { type: 9 });
    expect(driver.received()).toEqual([]);
  });

  test('that fills its ring as fast as it is emptied has one turn, and no more', () => {
    const driver = new VsockDriver();
    let [turns, refills] = [0, 0];
    const queue = driver.tx.queue({ yieldTurn: () => { turns += 1; } });
    driver.tx.onKick = undefined;
    const packet = vsockHeader.encode({ src_cid: BigInt(GUEST_CID), dst_cid: 2n, type: 1, op: RST });
    const take = queue.complete.bind(queue);
    queue.complete = (chain, writtenBytes) => {
      take(chain, writtenBytes);
      driver.tx.collect();
      if ((refills += 1) < 20_000) driver.tx.submit([packet]);
    };
    driver.tx.submit([packet]);
    driver.device.process(1, queue);
    expect(turns).toBe(1);
    expect(refills).toBeLessThan(5000);
  });

  test('with any packets whatever ends nothing but its own connections', () => {
    const packet = fc.record({
      op: fc.integer({ min: 0, max: 9 }), type: fc.constantFrom(1, 1, 1, 2), src_port: fc.integer({ min: 0, max: 3 }), dst_port: fc.constantFrom(1234, 5),
      flags: fc.integer({ min: 0, max: 4 }), buf_alloc: fc.constantFrom(0, 250, 2 ** 32 - 1), fwd_cnt: fc.constantFrom(0, 100, 2 ** 32 - 1), length: fc.integer({ min: 0, max: 1100 }),
    });
    fc.assert(fc.property(fc.array(packet, { maxLength: 60 }), (packets) => {
      const driver = new VsockDriver();
      driver.device.listen(1234, (one) => void one.write('hello', { timeoutMs: 1 }).catch(() => undefined));
      for (const { length, ...fields } of packets) {
        driver.send(fields.op, fields, Buffer.alloc(length));
        for (const { header, payload } of driver.received()) expect(payload.length).toBe(header.len);
      }
      expect([driver.tx.failures, driver.rx.failures]).toEqual([[], []]);
      expect(driver.device.connections.length).toBeLessThanOrEqual(4);
      expect(driver.device.connections.every(({ unreadBytes }) => unreadBytes <= BUFFER_BYTES)).toBe(true);
      expect(driver.rx.memory.guardsIntact() && driver.tx.memory.guardsIntact()).toBe(true);
    }), { numRuns: 200 });
  });
});
