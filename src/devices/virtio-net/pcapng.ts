// The pcapng capture format, writing (draft-ietf-opsawg-pcapng): one section, an interface for each card,
// enhanced packet blocks. Bytes only: where they go is capture.ts's.

const BLOCK = { SECTION_HEADER: 0x0a0d0d0a, INTERFACE_DESCRIPTION: 1, ENHANCED_PACKET: 6 } as const;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const LINKTYPE_ETHERNET = 1;
/** Options (3.5, and those of each block). */
const OPTION = { END: 0, COMMENT: 1, SHB_USERAPPL: 4, IF_NAME: 2, IF_MACADDR: 6, EPB_FLAGS: 2, EPB_QUEUE: 6 } as const;
/** epb_flags: the direction, as the card's owner sees it. */
const DIRECTION = { inbound: 1, outbound: 2 } as const;

export interface CapturedFrame {
  /** Counted from 0, in the order of interfaceBlock(). */
  readonly interfaceId: number;
  /** Since 1970, whole. */
  readonly timeUs: number;
  readonly frame: Uint8Array;
  /** `inbound`: to the guest. */
  readonly direction: keyof typeof DIRECTION;
  /** The queue pair. */
  readonly queue: number;
  readonly comment?: string;
}

export function sectionHeaderBlock(): Uint8Array {
  const body = new Uint8Array(16);
  const view = new DataView(body.buffer);
  view.setUint32(0, BYTE_ORDER_MAGIC, true);
  view.setUint16(4, 1, true); // version 1.0
  view.setBigInt64(8, -1n, true); // the section's length is not told
  return block(BLOCK.SECTION_HEADER, body, [option(OPTION.SHB_USERAPPL, Buffer.from('rootport'))]);
}

/** Times are in microseconds, the format's default; frames are whole (snap length 0: no limit). */
export function interfaceBlock(name: string, mac: Uint8Array): Uint8Array {
  const body = new Uint8Array(8);
  new DataView(body.buffer).setUint16(0, LINKTYPE_ETHERNET, true);
  return block(BLOCK.INTERFACE_DESCRIPTION, body, [option(OPTION.IF_NAME, Buffer.from(name)), option(OPTION.IF_MACADDR, mac)]);
}

export function packetBlock({ interfaceId, timeUs, frame, direction, queue, comment }: CapturedFrame): Uint8Array {
  const body = new Uint8Array(20 + padded(frame.length));
  const view = new DataView(body.buffer);
  view.setUint32(0, interfaceId, true);
  view.setUint32(4, Math.floor(timeUs / 2 ** 32), true);
  view.setUint32(8, timeUs % 2 ** 32, true);
  view.setUint32(12, frame.length, true);
  view.setUint32(16, frame.length, true);
  body.set(frame, 20);
  return block(BLOCK.ENHANCED_PACKET, body, [
    option(OPTION.EPB_FLAGS, word(DIRECTION[direction])),
    option(OPTION.EPB_QUEUE, word(queue)),
    ...(comment === undefined ? [] : [option(OPTION.COMMENT, Buffer.from(comment))]),
  ]);
}

function block(type: number, body: Uint8Array, options: readonly Uint8Array[]): Uint8Array {
  const optionBytes = options.reduce((sum, { length }) => sum + length, 0) + 4;
  const sizeBytes = 12 + body.length + optionBytes;
  const bytes = new Uint8Array(sizeBytes); // the end-of-options mark is four zeroes
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, sizeBytes, true);
  bytes.set(body, 8);
  let at = 8 + body.length;
  for (const one of options) {
    bytes.set(one, at);
    at += one.length;
  }
  view.setUint32(sizeBytes - 4, sizeBytes, true);
  return bytes;
}

function option(code: number, value: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + padded(value.length));
  const view = new DataView(bytes.buffer);
  view.setUint16(0, code, true);
  view.setUint16(2, value.length, true);
  bytes.set(value, 4);
  return bytes;
}

function word(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

function padded(lengthBytes: number): number {
  return Math.ceil(lengthBytes / 4) * 4;
}
