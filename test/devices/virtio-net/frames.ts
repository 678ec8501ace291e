// Frames for tests, made by hand: UDP over IPv4 with right checksums, and the sum that checks them.
import { encodeEthernet } from '../../../src/devices/virtio-net/ethernet.ts';

export const GUEST_MAC = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
export const PEER_MAC = Uint8Array.of(0x02, 0, 0, 0, 0, 9);

/** Some frame to the guest of this many bytes in all, its payload a pattern. */
export function patterned(lengthBytes: number, seed = 1): Buffer {
  const frame = Buffer.alloc(lengthBytes);
  for (let i = 0; i < lengthBytes; i += 1) frame[i] = (i * 31 + seed * 7) & 0xff;
  frame.set(GUEST_MAC.subarray(0, Math.min(6, lengthBytes)));
  return frame;
}

/** RFC 1071 by the book: sum of big-endian words, carries added back. 0xffff over data that holds a right checksum. */
export function sum16(...parts: readonly Uint8Array[]): number {
  const bytes = Buffer.concat(parts);
  const even = Buffer.concat([bytes, Buffer.alloc(bytes.length % 2)]);
  let sum = 0;
  for (let i = 0; i < even.length; i += 2) {
    sum += even.readUInt16BE(i);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

/** The pseudo header of UDP (17) or TCP (6) for the IPv4 datagram. */
export function pseudoHeader(datagram: Uint8Array): Buffer {
  const headerBytes = ((datagram[0] ?? 0) & 0xf) * 4;
  const length = Buffer.from(datagram).readUInt16BE(2) - headerBytes;
  return Buffer.concat([datagram.subarray(12, 20), Buffer.from([0, datagram[9] ?? 0, length >> 8, length & 0xff])]);
}

export interface Udp {
  readonly from?: readonly number[];
  readonly to?: readonly number[];
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly data?: Uint8Array;
}

/** A UDP frame; its UDP checksum is the pseudo header's sum alone, as a driver with CSUM leaves it. */
export function partialUdp({ from = [10, 0, 0, 1], to = [10, 0, 0, 2], sourcePort = 1000, destinationPort = 2000, data = Buffer.from('data') }: Udp): Buffer {
  const udp = Buffer.alloc(8 + data.length);
  udp.writeUInt16BE(sourcePort, 0);
  udp.writeUInt16BE(destinationPort, 2);
  udp.writeUInt16BE(udp.length, 4);
  udp.set(data, 8);
  const ip = Buffer.alloc(20);
  ip[0] = 0x45;
  ip.writeUInt16BE(20 + udp.length, 2);
  ip[8] = 64;
  ip[9] = 17;
  ip.set(from, 12);
  ip.set(to, 16);
  ip.writeUInt16BE(~sum16(ip) & 0xffff, 10);
  udp.writeUInt16BE(sum16(pseudoHeader(ip)), 6);
  return Buffer.from(encodeEthernet({ destination: PEER_MAC, source: GUEST_MAC, etherType: 0x0800, payload: Buffer.concat([ip, udp]) }));
}
