// The virtio socket device (virtio 1.2, 5.10), stream sockets: connections by their ports, packets from the driver
// checked, packets to it made. Its event queue is the front end's (QEMU sends the transport reset itself), so that
// there are two queues here. No seqpacket. What a connection is, is connection.ts's.
import type { Decoded } from '../../bytes/layout.ts';
import { ProtocolError, UsageError } from '../../errors.ts';
import type { VirtioDevice } from '../../virtio/device.ts';
import { VIRTIO_ID } from '../../virtio/ids.ts';
import type { Virtqueue } from '../../virtio/virtqueue.ts';
import { Connection } from './connection.ts';
import { opName, VIRTIO_VSOCK_OP, VIRTIO_VSOCK_TYPE, VMADDR_CID_HOST, vsockConfig, vsockHeader } from './layout.ts';

export interface VirtioVsockDeviceOptions {
  /** The guest's context id. */
  readonly guestCid: number;
  /** Receive buffer of each connection. */
  readonly bufferBytes: number;
  readonly log: (line: string) => void;
}

/** A packet that is to go to the driver, less what is known only when it goes. */
interface Packet {
  readonly op: number;
  readonly type: number;
  readonly hostPort: number;
  readonly guestPort: number;
  /** Absent: nobody's (a RST for what there is not). */
  readonly connection?: Connection;
}
type Header = Decoded<typeof vsockHeader.fields>;

const OP = VIRTIO_VSOCK_OP;
const HEADER_BYTES = vsockHeader.sizeBytes;
const NOTHING = new Uint8Array(0);
const STREAM = VIRTIO_VSOCK_TYPE.VIRTIO_VSOCK_TYPE_STREAM;
/** A guest may open connections for ever: more than these are refused. */
export const CONNECTIONS_MAX = 256;
/** While so many replies wait for buffers of the driver, none of its packets is taken (5.10.6.1). */
export const REPLIES_MAX = 256;
const REFUSED_MAX = 1000;
/** Where the host's own ports start, for connections to the guest. */
const FIRST_PORT = 0x4000_0000;

export class VirtioVsockDevice implements VirtioDevice {
  readonly deviceId = VIRTIO_ID.VSOCK;
  readonly features = 0n;
  /** 0: to the driver (rx). 1: from it (tx) (5.10.2). */
  readonly queueCount = 2;
  readonly queueSizeMax = 1024;
  /** What the driver did against the spec, the first thousand. */
  readonly refused: string[] = [];
  readonly #options: VirtioVsockDeviceOptions;
  readonly #connections = new Map<string, Connection>();
  readonly #listeners = new Map<number, (connection: Connection) => void>();
  readonly #replies: Packet[] = [];
  readonly #header = new Uint8Array(HEADER_BYTES);
  #rx: Virtqueue | undefined;
  #tx: Virtqueue | undefined;
  #running = false;
  #again = false;
  #nextPort = FIRST_PORT;

  constructor(options: VirtioVsockDeviceOptions) {
    this.#options = options;
  }

  config(): Uint8Array {
    return vsockConfig.encode({ guest_cid: BigInt(this.#options.guestCid) });
  }

  get connections(): readonly Connection[] {
    return [...this.#connections.values()];
  }

  /** Take connections to this port. UsageError when somebody does. Returns what ends it. */
  listen(port: number, taken: (connection: Connection) => void): () => void {
    if (this.#listeners.has(port)) throw new UsageError(`virtio-vsock: somebody listens on port ${port} already`);
    this.#listeners.set(port, taken);
    return () => void this.#listeners.delete(port);
  }

  /** Ask for a connection to a port of the guest: the answer is connection.opened(). */
  connect(guestPort: number): Connection {
    if (this.#connections.size >= CONNECTIONS_MAX) throw new UsageError(`virtio-vsock: there are ${CONNECTIONS_MAX} connections already`, { hint: 'close() those that are done with' });
    const hostPort = this.#nextPort;
    this.#nextPort = hostPort === 0xffff_fffe ? FIRST_PORT : hostPort + 1;
    const connection = this.#add(hostPort, guestPort);
    this.#reply(connection, OP.VIRTIO_VSOCK_OP_REQUEST);
    this.wake();
    return connection;
  }

  process(index: number, queue: Virtqueue): void {
    if (index === 0) this.#rx = queue;
    else this.#tx = queue;
    this.wake();
  }

  drain(index: number): Promise<void> {
    if (index === 0) this.#rx = undefined;
    else this.#tx = undefined;
    return Promise.resolve();
  }

  reset(): void {
    this.#rx = undefined;
    this.#tx = undefined;
    this.#replies.length = 0;
    const all = this.connections;
    this.#connections.clear();
    for (const connection of all) connection.closed(new ProtocolError('virtio-vsock: the driver reset the device, and with it the connection'));
  }

  /** Send what is due and take what came. A driver that never stops is given one turn of each queue (Virtqueue.next). */
  wake(): void {
    this.#again = true;
    if (this.#running) return;
    this.#running = true;
    try {
      while (this.#again) {
        this.#again = false;
        this.#send();
        const full = this.#take();
        const sent = this.#send();
        if (full && sent) this.#again = true; // there is room for replies again
      }
    } finally {
      this.#running = false;
    }
  }

  /** Put packets into buffers of the driver; one is taken only when there is something to put into it. True when it did. */
  #send(): boolean {
    const queue = this.#rx;
    let sent = false;
    if (queue === undefined) return sent;
    for (let packet = this.#next(); packet !== undefined; packet = this.#next()) {
      const chain = queue.next();
      if (chain === undefined) return sent;
      const roomBytes = chain.writableBytes - HEADER_BYTES;
      if (chain.readableBytes > 0 || roomBytes < (packet.op === OP.VIRTIO_VSOCK_OP_RW ? 1 : 0)) {
        this.#break(queue, `a receive buffer of ${chain.readableBytes} readable and ${chain.writableBytes} writable bytes`);
        return sent;
      }
      const { op, type, hostPort, guestPort, connection } = packet;
      if (packet === this.#replies[0]) this.#replies.shift();
      else if (connection !== undefined) this.#toTheEnd(connection);
      const { payload, ...said } = connection?.send(op, roomBytes) ?? { payload: NOTHING };
      chain.copyIn(0, vsockHeader.encode({
        src_cid: BigInt(VMADDR_CID_HOST), dst_cid: BigInt(this.#options.guestCid), src_port: hostPort, dst_port: guestPort,
        len: payload.length, type, op, ...said,
      }));
      chain.copyIn(HEADER_BYTES, payload);
      queue.complete(chain, HEADER_BYTES + payload.length);
      sent = true;
    }
    return sent;
  }

  /** A reply, or else what a connection has due: each in turn. */
  #next(): Packet | undefined {
    const [reply] = this.#replies;
    if (reply !== undefined) return reply;
    for (const connection of this.#connections.values()) {
      const op = connection.due;
      if (op !== undefined) return { op, type: STREAM, hostPort: connection.hostPort, guestPort: connection.guestPort, connection };
    }
    return undefined;
  }

  /** It had its turn: the others come first. */
  #toTheEnd(connection: Connection): void {
    const key = keyOf(connection.hostPort, connection.guestPort);
    this.#connections.delete(key);
    this.#connections.set(key, connection);
  }

  /** True when it stopped because too many replies wait. */
  #take(): boolean {
    const queue = this.#tx;
    if (queue === undefined) return false;
    while (this.#replies.length < REPLIES_MAX) {
      const chain = queue.next();
      if (chain === undefined) return false;
      const lengthBytes = chain.readableBytes - HEADER_BYTES;
      if (chain.writableBytes > 0 || lengthBytes < 0) {
        this.#break(queue, `a packet of ${chain.readableBytes} readable and ${chain.writableBytes} writable bytes`);
        return false;
      }
      chain.copyOut(0, this.#header);
      const header = vsockHeader.decode(this.#header);
      if (header.len !== lengthBytes) {
        this.#break(queue, `a packet with ${lengthBytes} bytes of payload whose header says ${header.len}`);
        return false;
      }
      // More than the receive buffer breaks the guest's credit in any case: not even looked at.
      const fits = lengthBytes <= this.#options.bufferBytes;
      const payload = new Uint8Array(fits ? lengthBytes : 0);
      chain.copyOut(HEADER_BYTES, payload);
      queue.complete(chain, 0);
      this.#received(header, fits ? payload : undefined);
    }
    return true;
  }

  #received(header: Header, payload: Uint8Array | undefined): void {
    const { op, type, src_port: guestPort, dst_port: hostPort } = header;
    if (header.src_cid !== BigInt(this.#options.guestCid) || header.dst_cid !== BigInt(VMADDR_CID_HOST)) {
      return this.#refuse(header, `it goes from context ${header.src_cid} to ${header.dst_cid}: dropped`);
    }
    const connection = type === STREAM ? this.#connections.get(keyOf(hostPort, guestPort)) : undefined;
    if (connection !== undefined && op !== OP.VIRTIO_VSOCK_OP_RST && !connection.credited(header.buf_alloc, header.fwd_cnt)) {
      return this.#violated(connection, header, `its fwd_cnt ${header.fwd_cnt} is of bytes that were never sent`);
    }
    if (type !== STREAM) return this.#noSuch(header, `type ${type} is not a stream`);
    switch (op) {
      case OP.VIRTIO_VSOCK_OP_REQUEST: return this.#requested(header, connection);
      case OP.VIRTIO_VSOCK_OP_RST: return connection === undefined ? undefined : this.#over(connection);
      case OP.VIRTIO_VSOCK_OP_RESPONSE:
        if (connection?.state !== 'connecting') return this.#noSuch(header, 'nobody asked for a connection', connection);
        return connection.open();
      case OP.VIRTIO_VSOCK_OP_SHUTDOWN:
        if (connection?.state !== 'open') return this.#noSuch(header, 'there is no such connection', connection);
        // 5.10.6.6: once both sides have said all, the answer is RST, and the ports are free.
        if (connection.peerShutdown(header.flags)) this.#reset(connection);
        return;
      case OP.VIRTIO_VSOCK_OP_RW:
        if (connection?.state !== 'open') return this.#noSuch(header, 'there is no such connection', connection);
        if (payload === undefined || !connection.receive(payload)) return this.#violated(connection, header, 'it exceeds what the guest may send');
        return;
      case OP.VIRTIO_VSOCK_OP_CREDIT_UPDATE:
      case OP.VIRTIO_VSOCK_OP_CREDIT_REQUEST:
        if (connection?.state !== 'open') return this.#noSuch(header, 'there is no such connection', connection);
        if (op === OP.VIRTIO_VSOCK_OP_CREDIT_REQUEST) connection.askedForCredit();
        return;
      default:
        return this.#noSuch(header, 'there is no such operation', connection);
    }
  }

  #requested(header: Header, connection: Connection | undefined): void {
    if (connection !== undefined) return this.#noSuch(header, 'these ports are connected already', connection);
    const taken = this.#listeners.get(header.dst_port);
    if (taken === undefined || this.#connections.size >= CONNECTIONS_MAX) {
      this.#options.log(`virtio-vsock: a connection to port ${header.dst_port} was refused: ${taken === undefined ? 'nobody listens' : `there are ${CONNECTIONS_MAX}`}`);
      return this.#sendReset(header.type, header.dst_port, header.src_port);
    }
    const made = this.#add(header.dst_port, header.src_port);
    made.credited(header.buf_alloc, header.fwd_cnt);
    made.open();
    this.#reply(made, OP.VIRTIO_VSOCK_OP_RESPONSE);
    taken(made);
  }

  /** RST from the guest: a refusal, an end, or an accident; what it is, the connection knows. */
  #over(connection: Connection): void {
    const refused = connection.state === 'connecting';
    this.#forget(connection);
    connection.closed(new ProtocolError(refused
      ? `virtio-vsock: the guest refused a connection to its port ${connection.guestPort}`
      : `virtio-vsock: port ${connection.guestPort} of the guest reset the connection`,
    refused ? { hint: 'Nobody listens there yet.' } : {}));
  }

  #violated(connection: Connection, header: Header, what: string): void {
    this.#refuse(header, what);
    this.#forget(connection);
    this.#sendReset(STREAM, connection.hostPort, connection.guestPort);
    connection.closed(new ProtocolError(`virtio-vsock: port ${connection.guestPort} of the guest broke the protocol: ${what}`, { received: header }));
  }

  /** 5.10.6.4 and 5.10.6.5: what belongs to nothing is answered with RST. */
  #noSuch(header: Header, what: string, connection?: Connection): void {
    if (connection !== undefined) return this.#violated(connection, header, what);
    this.#refuse(header, what);
    if (header.op !== OP.VIRTIO_VSOCK_OP_RST) this.#sendReset(header.type, header.dst_port, header.src_port);
  }

  #refuse({ op, src_port, dst_port, len }: Header, what: string): void {
    if (this.refused.length >= REFUSED_MAX) return;
    const text = `${opName(op)} of ${len} bytes from port ${src_port} to ${dst_port}: ${what}`;
    this.refused.push(text);
    this.#options.log(`virtio-vsock: ${text}`);
  }

  #add(hostPort: number, guestPort: number): Connection {
    const connection: Connection = new Connection(hostPort, guestPort, this.#options.bufferBytes, {
      wake: () => this.wake(),
      log: this.#options.log,
      reset: () => {
        this.#reset(connection);
        this.wake();
      },
    });
    this.#connections.set(keyOf(hostPort, guestPort), connection);
    return connection;
  }

  #reset(connection: Connection): void {
    this.#forget(connection);
    this.#sendReset(STREAM, connection.hostPort, connection.guestPort);
    connection.closed();
  }

  #forget(connection: Connection): void {
    const key = keyOf(connection.hostPort, connection.guestPort);
    if (this.#connections.get(key) === connection) this.#connections.delete(key);
    const at = this.#replies.findIndex((reply) => reply.connection === connection);
    if (at >= 0) this.#replies.splice(at, 1);
  }

  #reply(connection: Connection, op: number): void {
    const { hostPort, guestPort } = connection;
    this.#replies.push({ op, type: STREAM, hostPort, guestPort, connection });
  }

  #sendReset(type: number, hostPort: number, guestPort: number): void {
    this.#replies.push({ op: OP.VIRTIO_VSOCK_OP_RST, type, hostPort, guestPort });
  }

  #break(queue: Virtqueue, what: string): void {
    this.#options.log(`virtio-vsock: ${what}`);
    queue.break(new ProtocolError(`virtio-vsock: ${what}`, {
      hint: 'virtio 1.2, 5.10.6: a packet is a header of 44 bytes and as much payload as it says; receive buffers are device-writable and hold both.',
    }));
  }
}

function keyOf(hostPort: number, guestPort: number): string {
  return `${hostPort}:${guestPort}`;
}
