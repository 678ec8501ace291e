// An lspci dump of test/fixtures/lspci: the bytes, and what lspci itself said of them.
import { readFileSync, readdirSync } from 'node:fs';

const folder = new URL('../fixtures/lspci/', import.meta.url);

export interface LspciRegion {
  index: number;
  kind: 'io' | 'mem32' | 'mem64';
  prefetchable: boolean;
  address: bigint;
  sizeBytes: bigint;
}

export interface LspciDump {
  name: string;
  text: string;
  config: Uint8Array;
  regions: LspciRegion[];
  /** Offsets of the two lists, in list order. */
  capabilities: number[];
  extended: { offset: number; version: number }[];
}

export const dumpNames = readdirSync(folder).map((file) => file.replace(/\.txt$/, ''));

export function lspci(name: string): LspciDump {
  const text = readFileSync(new URL(`${name}.txt`, folder), 'utf8');
  const rows = [...text.matchAll(/^([0-9a-f]{2,3}): ((?:[0-9a-f]{2} ?){16})$/gm)];
  const config = new Uint8Array(rows.length * 16);
  for (const [, at = '', bytes = ''] of rows) config.set(bytes.trim().split(' ').map((byte) => Number.parseInt(byte, 16)), Number.parseInt(at, 16));
  const regions = [...text.matchAll(/Region (\d): (?:Memory at ([0-9a-f]+) \((32|64)-bit, (non-)?prefetchable\)|I\/O ports at ([0-9a-f]+)) \[size=(\d+)([KMG]?)\]/g)].map(
    ([, index, memory, width, non, io, size, unit = '']): LspciRegion => ({
      index: Number(index),
      kind: io !== undefined ? 'io' : width === '64' ? 'mem64' : 'mem32',
      prefetchable: io === undefined && non === undefined,
      address: BigInt(`0x${memory ?? io ?? '0'}`),
      sizeBytes: BigInt(size ?? 0) << BigInt({ '': 0, K: 10, M: 20, G: 30 }[unit] ?? 0),
    }),
  );
  const lists = [...text.matchAll(/^\tCapabilities: \[([0-9a-f]+)(?: v(\d+))?\]/gm)];
  return {
    name,
    text,
    config,
    regions,
    capabilities: lists.filter(([, , version]) => version === undefined).map(([, offset = '']) => Number.parseInt(offset, 16)),
    extended: lists.filter(([, , version]) => version !== undefined).map(([, offset = '', version]) => ({ offset: Number.parseInt(offset, 16), version: Number(version) })),
  };
}
