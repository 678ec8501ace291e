// A debugger's end of QEMU's stub, as much of it as a test needs: packets with acknowledgement, memory, rip, breakpoints.
// Source: gdb manual, appendix E, "Remote Serial Protocol"; QEMU: gdbstub/ (x86-64's registers in target/i386/gdbstub.c).
import { connect, type Socket } from 'node:net';
import { within } from '../../src/wait.ts';

const TIMEOUT_MS = 60_000;
/** Of a packet that every QEMU takes (MAX_PACKET_LENGTH is 4096 in 7.2), in hexadecimal digits. */
const READ_BYTES = 1024;
/** r0 to r15 stand before it. */
const RIP_OFFSET_BYTES = 16 * 8;

export class GdbRemote {
  readonly #socket: Socket;
  readonly #packets: string[] = [];
  #rest = '';
  #wake = (): void => {};

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('latin1').on('data', (text: string) => this.#heard(text));
    socket.on('error', () => {}); // seen as a wait that does not end
  }

  /** Stops the guest. */
  static async connect(path: string): Promise<GdbRemote> {
    const socket = connect(path);
    await within(new Promise((resolve, reject) => { socket.once('connect', resolve).once('error', reject); }), { timeoutMs: TIMEOUT_MS, what: 'the stub to take us' });
    const self = new GdbRemote(socket);
    await self.#ask('?');
    return self;
  }

  async read(address: bigint, sizeBytes: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let at = 0; at < sizeBytes; at += READ_BYTES) {
      parts.push(Buffer.from(await this.#ask(`m${(address + BigInt(at)).toString(16)},${Math.min(READ_BYTES, sizeBytes - at).toString(16)}`), 'hex'));
    }
    return Buffer.concat(parts);
  }

  async rip(): Promise<bigint> {
    return Buffer.from(await this.#ask('g'), 'hex').readBigUInt64LE(RIP_OFFSET_BYTES);
  }

  /** `software` replaces the instruction where that is how the accelerator does it. */
  async breakpoint(kind: 'software' | 'hardware', address: bigint): Promise<{ remove(): Promise<void> }> {
    const place = `${kind === 'software' ? 0 : 1},${address.toString(16)},1`;
    if (await this.#ask(`Z${place}`) !== 'OK') throw new Error(`the stub sets no ${kind} breakpoint`);
    return { remove: async () => { if (await this.#ask(`z${place}`) !== 'OK') throw new Error('the stub removes no breakpoint'); } };
  }

  /** Let the guest run, and wait for nothing. */
  run(): void {
    this.#send('c');
  }

  /** The next stop: the signal's number. */
  async stopped(): Promise<number> {
    return Number.parseInt((await this.#packet('a stop')).slice(1, 3), 16);
  }

  async detach(): Promise<void> {
    this.#socket.write('\x03'); // a running guest takes no packet
    await this.stopped();
    await this.#ask('D');
    this.#socket.destroy();
  }

  async #ask(packet: string): Promise<string> {
    this.#send(packet);
    return this.#packet(`an answer to ${packet}`);
  }

  #send(packet: string): void {
    this.#socket.write(`$${packet}#${checksum(packet)}`);
  }

  async #packet(what: string): Promise<string> {
    return within((async () => {
      for (;;) {
        const packet = this.#packets.shift();
        if (packet !== undefined) return packet;
        await new Promise<void>((resolve) => { this.#wake = resolve; });
      }
    })(), { timeoutMs: TIMEOUT_MS, what });
  }

  #heard(text: string): void {
    this.#rest = (this.#rest + text).replace(/^\++/, '');
    for (let match = PACKET.exec(this.#rest); match !== null; match = PACKET.exec(this.#rest)) {
      const [whole, packet = '', sum] = match;
      if (sum !== checksum(packet)) throw new Error(`a packet with a wrong checksum: ${whole}`);
      this.#socket.write('+');
      this.#packets.push(packet);
      this.#rest = this.#rest.slice(whole.length).replace(/^\++/, '');
    }
    this.#wake();
  }
}

const PACKET = /^\$([^#]*)#([0-9a-f]{2})/;

function checksum(packet: string): string {
  return (Buffer.from(packet, 'latin1').reduce((sum, byte) => sum + byte, 0) & 0xff).toString(16).padStart(2, '0');
}
