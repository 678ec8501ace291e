import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parseResourceTree, resourcesNamed } from '../../src/guest/iomem.ts';
import type { ResourceNode } from '../../src/guest/iomem.ts';

const fixture = (name: string): string => readFileSync(new URL(`../fixtures/guest/${name}.txt`, import.meta.url), 'utf8');

function format(nodes: readonly ResourceNode[], width: number, indent = ''): string {
  const hex = (value: bigint): string => value.toString(16).padStart(width, '0');
  return nodes.map((node) => `${indent}${hex(node.start)}-${hex(node.end)} : ${node.name}\n${format(node.children, width, `${indent}  `)}`).join('');
}

describe('parseResourceTree', () => {
  test.each([['iomem', 8], ['ioports', 4]])('%s of a real guest comes back as the same text', (name, width) => {
    expect(format(parseResourceTree(fixture(name)), width)).toBe(fixture(name));
  });

  test("edu's BAR is below its bridge's window, with its size", () => {
    const [bar, ...others] = resourcesNamed(parseResourceTree(fixture('iomem')), '0000:01:00.0');
    expect(others).toEqual([]);
    expect(bar).toEqual({ start: 0xfe400000n, end: 0xfe4fffffn, sizeBytes: 0x100000n, name: '0000:01:00.0', children: [] });
    const bridge = resourcesNamed(parseResourceTree(fixture('iomem')), 'PCI Bus 0000:01').find(({ children }) => children.length > 0);
    expect(bridge?.children.map(({ name }) => name)).toEqual(['0000:01:00.0']);
  });

  test("a driver's claim is a child of its BAR, and names with colons stay whole", () => {
    const [bar] = parseResourceTree('fe400000-fe4fffff : 0000:01:00.0\n  fe400000-fe4fffff : my : driver\nfe500000-fe5fffff : next\n');
    expect(bar?.children.map(({ name }) => name)).toEqual(['my : driver']);
  });

  test('any text is taken without an error', () => {
    const line = fc.tuple(fc.nat(8), fc.nat(), fc.nat(), fc.string()).map(([indent, a, b, name]) => `${' '.repeat(indent)}${a.toString(16)}-${b.toString(16)} : ${name}`);
    fc.assert(fc.property(fc.array(fc.oneof(line, fc.string())), (lines) => {
      expect(Array.isArray(parseResourceTree(lines.join('\n')))).toBe(true);
    }));
  });
});
