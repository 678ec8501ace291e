// Reads pcapng files, for tests: written after the specification (draft-ietf-opsawg-pcapng), and not after
// our writer. Refuses what it does not understand.

export interface PcapngInterface {
  readonly linkType: number;
  readonly name: string | undefined;
  readonly mac: string | undefined;
}

export interface PcapngPacket {
  readonly interfaceId: number;
  readonly timeUs: number;
  readonly frame: Buffer;
  readonly direction: 'inbound' | 'outbound' | undefined;
  readonly queue: number | undefined;
  readonly comment: string | undefined;
}

export interface PcapngFile {
  readonly application: string | undefined;
  readonly interfaces: readonly PcapngInterface[];
  readonly packets: readonly PcapngPacket[];
}

/** Throws an Error that says what is wrong, and where. */
export function readPcapng(file: Buffer): PcapngFile {
  const interfaces: PcapngInterface[] = [];
  const packets: PcapngPacket[] = [];
  let application: string | undefined;
  for (let at = 0; at < file.length; ) {
    const type = file.readUInt32LE(at);
    const length = file.readUInt32LE(at + 4);
    if (length < 12 || length % 4 !== 0 || at + length > file.length) throw new Error(`block at ${at} has a length of ${length}`);
    if (file.readUInt32LE(at + length - 4) !== length) throw new Error(`block at ${at} ends with another length`);
    const body = file.subarray(at + 8, at + length - 4);
    if ((at === 0) !== (type === 0x0a0d0d0a)) throw new Error(`block at ${at} is of type 0x${type.toString(16)}`);
    if (type === 0x0a0d0d0a) {
      if (body.readUInt32LE(0) !== 0x1a2b3c4d || body.readUInt16LE(4) !== 1 || body.readUInt16LE(6) !== 0) throw new Error('not a little-endian pcapng 1.0');
      application = options(body.subarray(16)).get(4)?.toString();
    } else if (type === 1) {
      const found = options(body.subarray(8));
      if (body.readUInt32LE(4) !== 0 || found.has(9)) throw new Error('a snap length or a resolution that this reader does not know');
      interfaces.push({ linkType: body.readUInt16LE(0), name: found.get(2)?.toString(), mac: found.get(6)?.toString('hex') });
    } else if (type === 6) {
      const captured = body.readUInt32LE(12);
      if (captured !== body.readUInt32LE(16)) throw new Error(`packet at ${at} is cut off`);
      const interfaceId = body.readUInt32LE(0);
      if (interfaceId >= interfaces.length) throw new Error(`packet at ${at} is of interface ${interfaceId}, which is not described`);
      const found = options(body.subarray(20 + Math.ceil(captured / 4) * 4));
      packets.push({
        interfaceId, timeUs: body.readUInt32LE(4) * 2 ** 32 + body.readUInt32LE(8), frame: Buffer.from(body.subarray(20, 20 + captured)),
        direction: ([undefined, 'inbound', 'outbound'] as const)[(found.get(2)?.readUInt32LE(0) ?? 0) & 3],
        queue: found.get(6)?.readUInt32LE(0), comment: found.get(1)?.toString(),
      });
    } else {
      throw new Error(`block at ${at} is of type ${type}`);
    }
    at += length;
  }
  return { application, interfaces, packets };
}

function options(bytes: Buffer): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  for (let at = 0; at < bytes.length; ) {
    const code = bytes.readUInt16LE(at);
    const length = bytes.readUInt16LE(at + 2);
    if (code === 0) {
      if (length !== 0 || at + 4 !== bytes.length) throw new Error('options go on after their end');
      return found;
    }
    found.set(code, bytes.subarray(at + 4, at + 4 + length));
    at += 4 + Math.ceil(length / 4) * 4;
  }
  if (bytes.length > 0) throw new Error('options without an end');
  return found;
}
