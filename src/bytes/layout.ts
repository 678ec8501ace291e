// Layouts are data: a register block or a wire message is a table of fields, little-endian, and
// decode, encode and the size come out of the table. Not for hot paths: those index cached u16/u32
// views. No bit fields, no variable-length tails.
import { UsageError } from '../errors.ts';

const WIDTH = { u8: 1, u16: 2, u32: 4, u64: 8 } as const;
type Scalar = keyof typeof WIDTH;

/** One field: where it lies, what it holds, and a line on what it means (with the spec section). */
export interface Field {
  readonly offset: number;
  readonly kind: Scalar | 'bytes';
  readonly widthBytes: number;
  readonly doc: string;
}

export interface FieldOf<K extends Scalar | 'bytes'> extends Field {
  readonly kind: K;
}

type ValueOf<F extends Field> = F extends { kind: 'u64' } ? bigint : F extends { kind: 'bytes' } ? Uint8Array : number;
export type Decoded<T extends Record<string, Field>> = { -readonly [K in keyof T]: ValueOf<T[K]> };

const scalar = <K extends Scalar>(kind: K) => (offset: number, doc = ''): FieldOf<K> =>
  ({ offset, kind, widthBytes: WIDTH[kind], doc });

export const u8 = scalar('u8');
export const u16 = scalar('u16');
export const u32 = scalar('u32');
/** Decodes to a bigint. */
export const u64 = scalar('u64');
/** `widthBytes` bytes as they are; encoded shorter ones are padded with zeroes. */
export const bytes = (offset: number, widthBytes: number, doc = ''): FieldOf<'bytes'> =>
  ({ offset, kind: 'bytes', widthBytes, doc });

export interface Layout<T extends Record<string, Field>> {
  readonly name: string;
  readonly sizeBytes: number;
  readonly fields: Readonly<T>;
  /** The fields' values; throws UsageError when fewer than `sizeBytes` are there. */
  decode(source: Uint8Array, offset?: number): Decoded<T>;
  /** A fresh Uint8Array of `sizeBytes`; fields left out are zero. Throws UsageError for a value that does not fit. */
  encode(values: Partial<Decoded<T>>): Uint8Array;
}

/**
 * Make a layout from its table. Fields must lie inside `sizeBytes`; they may overlap (unions) only if
 * they do so exactly, so that a slip in an offset is caught where the table is written.
 */
export function layout<T extends Record<string, Field>>(name: string, sizeBytes: number, fields: T): Layout<T> {
  const entries = Object.entries(fields) as [keyof T & string, Field][];
  check(name, sizeBytes, entries);
  return {
    name,
    sizeBytes,
    fields,
    decode(source, offset = 0) {
      if (offset < 0 || offset + sizeBytes > source.length) {
        throw new UsageError(`${name} is ${sizeBytes} bytes, and ${Math.max(0, source.length - offset)} are there`);
      }
      const view = new DataView(source.buffer, source.byteOffset + offset, sizeBytes);
      const values: Record<string, unknown> = {};
      for (const [key, field] of entries) values[key] = load(view, field);
      return values as Decoded<T>;
    },
    encode(values) {
      const target = new Uint8Array(sizeBytes);
      const view = new DataView(target.buffer);
      for (const [key, field] of entries) {
        const value: unknown = values[key];
        if (value !== undefined) store(view, field, value, `${name}.${key}`);
      }
      return target;
    },
  };
}

function check(name: string, sizeBytes: number, entries: [string, Field][]): void {
  for (const [key, a] of entries) {
    if (a.offset < 0 || a.offset + a.widthBytes > sizeBytes) throw new UsageError(`${name}.${key} lies outside its ${sizeBytes} bytes`);
    for (const [other, b] of entries) {
      const apart = a.offset + a.widthBytes <= b.offset || b.offset + b.widthBytes <= a.offset;
      if (!apart && (a.offset !== b.offset || a.widthBytes !== b.widthBytes)) throw new UsageError(`${name}.${key} overlaps ${name}.${other}`);
    }
  }
}

function load(view: DataView, { kind, offset, widthBytes }: Field): number | bigint | Uint8Array {
  switch (kind) {
    case 'u8': return view.getUint8(offset);
    case 'u16': return view.getUint16(offset, true);
    case 'u32': return view.getUint32(offset, true);
    case 'u64': return view.getBigUint64(offset, true);
    case 'bytes': return new Uint8Array(view.buffer, view.byteOffset + offset, widthBytes).slice();
  }
}

function store(view: DataView, { kind, offset, widthBytes }: Field, value: unknown, what: string): void {
  if (kind === 'bytes') {
    if (!(value instanceof Uint8Array) || value.length > widthBytes) throw new UsageError(`${what} takes at most ${widthBytes} bytes`);
    new Uint8Array(view.buffer, view.byteOffset + offset, widthBytes).set(value);
    return;
  }
  if (kind === 'u64') {
    if (typeof value !== 'bigint' || BigInt.asUintN(64, value) !== value) throw new UsageError(`${what} is a 64-bit unsigned bigint, not ${String(value)}`);
    view.setBigUint64(offset, value, true);
    return;
  }
  const limit = 2 ** (8 * widthBytes);
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value >= limit) {
    throw new UsageError(`${what} is a ${kind}, and ${String(value)} does not fit`);
  }
  if (kind === 'u8') view.setUint8(offset, value);
  else if (kind === 'u16') view.setUint16(offset, value, true);
  else view.setUint32(offset, value, true);
}
