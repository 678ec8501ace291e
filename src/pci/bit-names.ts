// Registers of single bits as tables, name to bit number, and what they say of a value.

/** Names by bit number, in the order in which they are shown. */
export type BitNames = Readonly<Record<string, number>>;

/** A bit of a value; true when set. Bits are 0 to 31. */
export function bit(value: number, number: number): boolean {
  return ((value >>> number) & 1) !== 0;
}

/** `width` bits of a value from bit `low` on, as a number. */
export function field(value: number, low: number, width: number): number {
  return Math.floor((value >>> 0) / 2 ** low) % 2 ** width;
}

/** The names of the bits that are set, in the table's order. */
export function bitsSet<T extends BitNames>(value: number, names: T): (keyof T & string)[] {
  return Object.entries(names).filter(([, number]) => bit(value, number)).map(([name]) => name);
}
