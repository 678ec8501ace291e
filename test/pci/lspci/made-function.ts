// Config spaces with one capability of a kind, its registers by chance: what no device of QEMU has.
import { ConfigImage } from '../../../src/pci/config-image.ts';
import type { LspciFunction } from '../../../src/pci/lspci/index.ts';

/** A number from 0 up to, without, `end`. */
export type Chance = (end: number) => number;

/** xorshift32: the same numbers for the same seed. */
export function chanceOf(seed: number): Chance {
  let state = seed >>> 0 || 1;
  return (end) => {
    state = (state ^ (state << 13)) >>> 0;
    state ^= state >>> 17;
    state = (state ^ (state << 5)) >>> 0;
    return state % end;
  };
}

/** Dense, sparse, single bits, small numbers: each finds other mistakes. */
function byte(chance: Chance, mode: number): number {
  if (mode === 0) return chance(256);
  if (mode === 1) return chance(3) === 0 ? chance(256) : 0;
  return mode === 2 ? (chance(2) === 0 ? 0 : 1 << chance(8)) : chance(4);
}

const PORT_TYPES = [0, 4, 5, 6, 9, 10];

function blank(chance: Chance): Uint8Array {
  const bytes = new Uint8Array(4096);
  bytes.set([0x86, 0x80, 0x01, 0x10]);
  bytes[0x06] = 0x10;
  const isBridge = chance(2) === 1;
  bytes.set(isBridge ? [0x04, 0x06] : [0x00, 0x02], 0x0a);
  bytes[0x0e] = isBridge ? 1 : 0;
  return bytes;
}

export type Fill = (bytes: Uint8Array, offset: number, chance: Chance) => void;

/** A capability of conventional config space at 0x40 or 0x80; `mend` makes what it must not be what it may. */
export function conventional(id: number, chance: Chance, mend: Fill = () => {}): Uint8Array {
  const bytes = blank(chance).subarray(0, 256);
  const [offset, mode] = [chance(2) === 0 ? 0x40 : 0x80, chance(4)];
  bytes[0x34] = offset;
  for (let at = offset + 2; at < 256; at++) bytes[at] = byte(chance, mode);
  bytes.set([id, 0], offset);
  mend(bytes, offset, chance);
  return bytes;
}

/** An extended capability at 0x100, of a function of any PCIe type. */
export function extended(id: number, chance: Chance, mend: Fill = () => {}): Uint8Array {
  const bytes = blank(chance);
  bytes[0x34] = 0x40;
  bytes.set([0x10, 0, 2 | ((PORT_TYPES[chance(PORT_TYPES.length)] ?? 0) << 4)], 0x40);
  const mode = chance(4);
  for (let at = 0x104; at < 0x300; at++) bytes[at] = byte(chance, mode);
  bytes.set([id, 0, 1 + chance(2), 0], 0x100);
  mend(bytes, 0x100, chance);
  return bytes;
}

/** Functions of one domain, in the order given. */
export function functionsOf(images: readonly Uint8Array[]): LspciFunction[] {
  return images.map((bytes, index) => ({
    address: { domain: 0, bus: index >> 8, device: (index >> 3) & 31, function: index & 7 }, config: new ConfigImage(bytes),
  }));
}
