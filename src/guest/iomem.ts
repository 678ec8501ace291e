// /proc/iomem and /proc/ioports parsed: the kernel's tree of who claims which addresses.
// Source: kernel/resource.c r_show. Pure. Readers without CAP_SYS_ADMIN see every address as 0.

export interface ResourceNode {
  readonly start: bigint;
  /** The last address, inclusive. */
  readonly end: bigint;
  readonly sizeBytes: bigint;
  /** `0000:01:00.0` for a BAR, a driver's name for what it has claimed, `System RAM`. Not unique. */
  readonly name: string;
  readonly children: readonly ResourceNode[];
}

/** The text of /proc/iomem or /proc/ioports: its roots. Lines of another form are left out. */
export function parseResourceTree(text: string): ResourceNode[] {
  const roots: ResourceNode[] = [];
  /** The open nodes by indent, outermost first. */
  const path: { indent: number; children: ResourceNode[] }[] = [];
  for (const line of text.split(/\r?\n/)) {
    const match = /^( *)([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.*)$/.exec(line);
    if (match === null) continue;
    const [, spaces = '', first = '', last = '', name = ''] = match;
    const start = BigInt(`0x${first}`);
    const end = BigInt(`0x${last}`);
    const children: ResourceNode[] = [];
    while ((path.at(-1)?.indent ?? -1) >= spaces.length) path.pop();
    (path.at(-1)?.children ?? roots).push({ start, end, sizeBytes: end - start + 1n, name, children });
    path.push({ indent: spaces.length, children });
  }
  return roots;
}

/** Every node of this name, at any depth. */
export function resourcesNamed(nodes: readonly ResourceNode[], name: string): ResourceNode[] {
  return nodes.flatMap((node) => [...(node.name === name ? [node] : []), ...resourcesNamed(node.children, name)]);
}
