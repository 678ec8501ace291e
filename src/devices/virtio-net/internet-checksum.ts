// The internet checksum (RFC 1071): of IPv4 headers, ICMP, UDP, TCP.

/** The ones' complement sum of [start, end) as big-endian 16-bit words, folded, not inverted; an odd end is padded with 0. */
export function onesComplementSum(source: Uint8Array, start: number, end: number, initial = 0): number {
  let sum = initial;
  const even = start + ((end - start) & ~1);
  for (let i = start; i < even; i += 2) sum += (source[i] << 8) | source[i + 1];
  if (even < end) sum += source[even] << 8;
  // Below 2^53 for any frame: each word adds less than 2^16.
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return sum;
}

/** The checksum field's value for [start, end), whose own field is 0 or a partial sum already. */
export function internetChecksum(source: Uint8Array, start = 0, end = source.length): number {
  return ~onesComplementSum(source, start, end) & 0xffff;
}
