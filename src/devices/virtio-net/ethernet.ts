// Ethernet II frames, and as much of ARP (RFC 826), IPv4 (RFC 791) and ICMP (RFC 792) as it takes to answer a
// ping. Big-endian, unlike everything else here. No VLANs, no fragments, no IPv6.
import { UsageError } from '../../errors.ts';
import { internetChecksum } from './internet-checksum.ts';
import { ETHERNET_HEADER_BYTES } from './layout.ts';

export const ETHERTYPE = { IPV4: 0x0800, ARP: 0x0806, IPV6: 0x86dd, LOCAL_EXPERIMENTAL: 0x88b5 } as const;
export const BROADCAST = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff);

const ARP_BYTES = 28;
const IPV4_HEADER_BYTES = 20;
const PROTOCOL_ICMP = 1;
const [ECHO_REPLY, ECHO_REQUEST] = [0, 8];

export interface EthernetFrame {
  /** 6 bytes each. */
  readonly destination: Uint8Array;
  readonly source: Uint8Array;
  readonly etherType: number;
  readonly payload: Uint8Array;
}

/** Views into the frame; undefined for a frame that is shorter than its header. */
export function decodeEthernet(frame: Uint8Array): EthernetFrame | undefined {
  if (frame.length < ETHERNET_HEADER_BYTES) return undefined;
  return {
    destination: frame.subarray(0, 6), source: frame.subarray(6, 12),
    etherType: (frame[12] << 8) | frame[13], payload: frame.subarray(ETHERNET_HEADER_BYTES),
  };
}

export function encodeEthernet({ destination, source, etherType, payload }: EthernetFrame): Uint8Array {
  const frame = new Uint8Array(ETHERNET_HEADER_BYTES + payload.length);
  frame.set(destination);
  frame.set(source, 6);
  frame[12] = etherType >> 8;
  frame[13] = etherType & 0xff;
  frame.set(payload, ETHERNET_HEADER_BYTES);
  return frame;
}

export interface Station {
  /** 6 bytes. */
  readonly mac: Uint8Array;
  /** 4 bytes. */
  readonly ipv4: Uint8Array;
}

/** The station's answer to an ARP request for its address or an ICMP echo request to it; undefined for any other frame. */
export function answerOf(station: Station, frame: Uint8Array): Uint8Array | undefined {
  const ethernet = decodeEthernet(frame);
  if (ethernet === undefined) return undefined;
  const payload = ethernet.etherType === ETHERTYPE.ARP ? arpReply(station, ethernet.payload)
    : ethernet.etherType === ETHERTYPE.IPV4 && same(ethernet.destination, station.mac) ? echoReply(station, ethernet.payload)
      : undefined;
  return payload && encodeEthernet({ destination: ethernet.source, source: station.mac, etherType: ethernet.etherType, payload });
}

function arpReply({ mac, ipv4 }: Station, request: Uint8Array): Uint8Array | undefined {
  // Ethernet and IPv4 addresses, a request, for us.
  const start = Uint8Array.of(0, 1, 8, 0, 6, 4, 0, 1);
  if (request.length < ARP_BYTES || !same(request.subarray(0, 8), start) || !same(request.subarray(24, 28), ipv4)) return undefined;
  const reply = new Uint8Array(ARP_BYTES);
  reply.set(start);
  reply[7] = 2;
  reply.set(mac, 8);
  reply.set(ipv4, 14);
  reply.set(request.subarray(8, 18), 18); // the asker's addresses
  return reply;
}

/** Of a whole datagram whose checksums are right: a wrong one is not answered. */
function echoReply({ ipv4 }: Station, datagram: Uint8Array): Uint8Array | undefined {
  if (datagram.length < IPV4_HEADER_BYTES + 8 || datagram[0] >> 4 !== 4) return undefined;
  const headerBytes = (datagram[0] & 0xf) * 4;
  const totalBytes = (datagram[2] << 8) | datagram[3];
  const fragment = (((datagram[6] << 8) | datagram[7]) & 0x3fff) !== 0;
  if (headerBytes !== IPV4_HEADER_BYTES || totalBytes < headerBytes + 8 || totalBytes > datagram.length || fragment) return undefined;
  if (datagram[9] !== PROTOCOL_ICMP || datagram[headerBytes] !== ECHO_REQUEST || !same(datagram.subarray(16, 20), ipv4)) return undefined;
  if (internetChecksum(datagram, 0, headerBytes) !== 0 || internetChecksum(datagram, headerBytes, totalBytes) !== 0) return undefined;
  const reply = new Uint8Array(datagram.subarray(0, totalBytes)); // a copy: slice() of a Buffer is none
  reply.set(ipv4, 12);
  reply.set(datagram.subarray(12, 16), 16);
  reply[8] = 64;
  reply[headerBytes] = ECHO_REPLY;
  put16(reply, 10, 0);
  put16(reply, 10, internetChecksum(reply, 0, headerBytes));
  put16(reply, headerBytes + 2, 0);
  put16(reply, headerBytes + 2, internetChecksum(reply, headerBytes, totalBytes));
  return reply;
}

/** `52:54:00:12:34:56`. UsageError for what is none. */
export function macBytes(text: string): Uint8Array {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) throw new UsageError(`${JSON.stringify(text)} is no MAC address`, { hint: 'Such as 52:54:00:12:34:56.' });
  return Uint8Array.from(text.split(':'), (part) => parseInt(part, 16));
}

export function macText(mac: Uint8Array): string {
  return Array.from(mac.subarray(0, 6), (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** `192.0.2.1`. UsageError for what is none. */
export function ipv4Bytes(text: string): Uint8Array {
  const parts = text.split('.');
  if (parts.length !== 4 || parts.some((part) => !/^\d{1,3}$/.test(part) || Number(part) > 255)) {
    throw new UsageError(`${JSON.stringify(text)} is no IPv4 address`, { hint: 'Such as 192.0.2.1.' });
  }
  return Uint8Array.from(parts, Number);
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function put16(target: Uint8Array, at: number, value: number): void {
  target[at] = value >> 8;
  target[at + 1] = value & 0xff;
}
