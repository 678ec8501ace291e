// Words that lspci's lines are made of: bits as `Name+` or `Name-`, numbers in hex, sizes.
import { bit, type BitNames } from '../bit-names.ts';

export function sign(set: boolean): '+' | '-' {
  return set ? '+' : '-';
}

/** `DLP- SDES+`: every name of the table with its bit. */
export function marks(value: number, names: BitNames): string {
  return Object.entries(names).map(([name, number]) => `${name}${sign(bit(value, number))}`).join(' ');
}

export function hex(value: number | bigint, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}

/** The name at this index, or what stands for a value without one. */
export function named(names: readonly (string | undefined)[], index: number, other = 'unknown'): string {
  return names[index] ?? other;
}

const UNITS = ['', 'K', 'M', 'G', 'T'];

/** ` [size=4K]`; nothing for zero. Whole units only: what is no multiple of 1024 stays in the smaller one. */
export function sizeText(bytes: bigint): string {
  if (bytes === 0n) return '';
  let [size, unit] = [bytes, 0];
  while (size % 1024n === 0n && unit < UNITS.length - 1) [size, unit] = [size / 1024n, unit + 1];
  // lspci holds the number in 32 bits.
  return ` [size=${BigInt.asUintN(32, size)}${UNITS[unit] ?? ''}]`;
}
