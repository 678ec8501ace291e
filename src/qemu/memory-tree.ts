// What QEMU's monitor prints as `info mtree`: its memory regions as trees, parsed, and what an address
// reaches in them. Source: QEMU system/memory.c mtree_print_mr, docs/devel/memory.rst.
// Not `info mtree -f`, though it is the plainer answer: it leaks references to the flat views that it
// prints (seen on 7.2 and 10.0), and a device that is in one is never deleted after.

export interface MemoryNode {
  /** The region: `edu-mmio`, `msix-table`, `vhost-user-rng-pci-msix`. Not unique. */
  readonly name: string;
  /** In the addresses of its tree. */
  readonly start: bigint;
  readonly sizeBytes: bigint;
  readonly priority: number;
  /** QEMU's word: `ram`, `rom`, `romd`, `i/o`. */
  readonly kind: string;
  /** What it shows of another tree, from which address there on. */
  readonly alias: { readonly of: string; readonly from: bigint } | undefined;
  readonly children: readonly MemoryNode[];
}

export interface MemoryTrees {
  /** Roots by address space: `memory` is what the CPUs' physical addresses reach, `I/O` their ports. */
  readonly spaces: ReadonlyMap<string, readonly MemoryNode[]>;
  /** Every root by its own name: what aliases show. Each bridge has a `pci_bridge_pci`. */
  readonly roots: ReadonlyMap<string, readonly MemoryNode[]>;
}

const NODE = /^( +)([0-9a-f]{16})-([0-9a-f]{16}) \(prio (-?\d+), ([^)]+)\): (.+)$/;
const ALIAS = /^alias .* @(\S+) ([0-9a-f]{16})-[0-9a-f]{16}/;

/** The answer of `info mtree`. */
export function parseMemoryTrees(text: string): MemoryTrees {
  const spaces = new Map<string, MemoryNode[]>();
  const roots = new Map<string, MemoryNode[]>();
  /** Address spaces that share the tree that follows. */
  let named: string[] = [];
  let path: { indent: number; children: MemoryNode[] }[] = [];
  for (const line of text.split(/\r?\n/)) {
    const title = /^(address-space|memory-region): (.*)$/.exec(line);
    if (title !== null) {
      if (path.length > 0) named = [];
      path = [];
      if (title[1] === 'address-space') named.push(title[2] ?? '');
      continue;
    }
    const match = NODE.exec(line);
    if (match === null) continue;
    const [, spacesBefore = '', first = '', last = '', priority = '', kind = '', rest = ''] = match;
    const start = BigInt(`0x${first}`);
    const alias = ALIAS.exec(rest);
    const children: MemoryNode[] = [];
    const node: MemoryNode = {
      name: alias === null ? rest.replace(/ @\S+$/, '') : alias[1] ?? '', start, sizeBytes: BigInt(`0x${last}`) - start + 1n,
      priority: Number(priority), kind, children,
      alias: alias === null ? undefined : { of: alias[1] ?? '', from: BigInt(`0x${alias[2] ?? '0'}`) },
    };
    const indent = spacesBefore.length;
    while ((path.at(-1)?.indent ?? -1) >= indent) path.pop();
    const parent = path.at(-1)?.children;
    if (parent !== undefined) parent.push(node);
    else {
      for (const name of named) spaces.set(name, [...(spaces.get(name) ?? []), node]);
      roots.set(node.name, [...(roots.get(node.name) ?? []), node]);
    }
    path.push({ indent, children });
  }
  return { spaces, roots };
}

/** A region that an address reaches, where the address space has it. */
export interface ReachedRegion {
  readonly name: string;
  readonly start: bigint;
  readonly sizeBytes: bigint;
  readonly node: MemoryNode;
}

/** Regions that only hold others: an address that reaches nothing in them reaches nothing. */
const CONTAINERS = /^(system|memory|pci|pci_bridge_pci|pci_bridge_io|pci_bridge_pref_mem|io)$/;
const ALIASES_DEEP_MAX = 16;

/**
 * The regions that an access to this address goes through, the outermost first: higher priorities hide
 * lower ones. Containers of buses are left out. Empty: nothing is there.
 */
export function regionsAt(trees: MemoryTrees, addressSpace: string, address: bigint): ReachedRegion[] {
  const seek = (node: MemoryNode, shift: bigint, deep: number): ReachedRegion[] | undefined => {
    const start = node.start + shift;
    if (address < start || address >= start + node.sizeBytes || deep > ALIASES_DEEP_MAX) return undefined;
    const { alias } = node;
    if (alias !== undefined) {
      const there = start - alias.from;
      for (const root of trees.roots.get(alias.of) ?? []) {
        const found = seek(root, there - root.start, deep + 1);
        if (found !== undefined) return found;
      }
      // An alias of RAM may show a tree that the monitor does not print.
      return node.kind === 'i/o' ? undefined : [{ name: alias.of, start, sizeBytes: node.sizeBytes, node }];
    }
    const container = CONTAINERS.test(node.name);
    for (const child of [...node.children].sort((a, b) => b.priority - a.priority)) {
      const found = seek(child, shift, deep);
      if (found !== undefined) return container ? found : [{ name: node.name, start, sizeBytes: node.sizeBytes, node }, ...found];
    }
    return container ? undefined : [{ name: node.name, start, sizeBytes: node.sizeBytes, node }];
  };
  for (const root of trees.spaces.get(addressSpace) ?? []) {
    const found = seek(root, 0n, 0);
    if (found !== undefined) return found;
  }
  return [];
}
