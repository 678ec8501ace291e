// What QEMU's human monitor prints about memory and networks, parsed: `info mtree -f`, `info usernet`.
// Sources: QEMU system/memory.c mtree_print_flatview, libslirp slirp_connection_info. Lines that are of
// neither form are passed over: the monitor's text is no promise of QEMU's.

/** One range of a flat view: what an access to these guest-physical addresses reaches. */
export interface FlatRange {
  readonly start: bigint;
  /** The last address, inclusive. */
  readonly end: bigint;
  readonly sizeBytes: bigint;
  readonly priority: number;
  /** QEMU's word: `ram`, `rom`, `romd`, `ramd`, `i/o`; `nv-` before it for persistent memory. */
  readonly kind: string;
  /** The memory region: `edu-mmio`, `msix-table`, `virtio-pci-common-virtio-rng`. Not unique. */
  readonly name: string;
  /** Where in its region the range starts. */
  readonly offsetBytes: bigint;
}

export interface FlatView {
  readonly addressSpaces: readonly { readonly name: string; readonly root: string }[];
  /** `none` when the view is empty. */
  readonly root: string;
  readonly ranges: readonly FlatRange[];
}

/** The answer of `info mtree -f`. Ranges of a view come in ascending order and do not overlap. */
export function parseFlatViews(text: string): FlatView[] {
  const views: { addressSpaces: { name: string; root: string }[]; root: string; ranges: FlatRange[] }[] = [];
  for (const line of text.split(/\r?\n/)) {
    const view = views.at(-1);
    if (/^\s*FlatView #\d+/.test(line)) views.push({ addressSpaces: [], root: 'none', ranges: [] });
    if (view === undefined) continue;
    const space = /^\s*AS "(.*)", root: (.*?)(?:, alias .*)?$/.exec(line);
    if (space !== null) view.addressSpaces.push({ name: space[1] ?? '', root: space[2] ?? '' });
    const root = /^\s*Root memory region: (.*)$/.exec(line);
    if (root !== null) view.root = root[1] ?? '';
    const range = rangeOf(line);
    if (range !== undefined) view.ranges.push(range);
  }
  return views;
}

const RANGE = /^\s*([0-9a-f]{1,16})-([0-9a-f]{1,16}) \(prio (-?\d+), ([^)]+)\): (.*?)(?: @([0-9a-f]{1,16}))?(?: kvm| hvf| tcg| nvmm| whpx)?$/;

function rangeOf(line: string): FlatRange | undefined {
  const match = RANGE.exec(line);
  if (match === null) return undefined;
  const [, first = '', last = '', priority = '', kind = '', name = '', offset = '0'] = match;
  const start = BigInt(`0x${first}`);
  const end = BigInt(`0x${last}`);
  return { start, end, sizeBytes: end - start + 1n, priority: Number(priority), kind, name, offsetBytes: BigInt(`0x${offset}`) };
}

/** The view of an address space: `memory` is what the CPUs' physical addresses reach, `I/O` their ports. */
export function viewOf(views: readonly FlatView[], addressSpace: string): FlatView | undefined {
  return views.find((view) => view.addressSpaces.some(({ name }) => name === addressSpace));
}

/** The ranges of a view that hold any byte of [start, start + sizeBytes). */
export function rangesWithin(view: FlatView, start: bigint, sizeBytes: bigint): FlatRange[] {
  return view.ranges.filter((range) => range.start < start + sizeBytes && range.end >= start);
}

/** One line of `info usernet`. */
export interface UsernetConnection {
  /** `TCP`, `UDP`, `ICMP`, `UNIX`. */
  readonly protocol: string;
  /** `HOST_FORWARD` for a port that listens on the host; a TCP state otherwise; empty for ICMP. */
  readonly state: string;
  readonly fd: number;
  /** The host's side of a forward: 127.0.0.1, or `*` for every address. */
  readonly sourceAddress: string;
  readonly sourcePort: number;
  readonly destinationAddress: string;
  readonly destinationPort: number;
}

/** The answer of `info usernet`. ICMP lines, which have no ports, say 0. */
export function parseUsernet(text: string): UsernetConnection[] {
  const connections: UsernetConnection[] = [];
  for (const line of text.split(/\r?\n/)) {
    const match = /^\s*([A-Z]+)\[([^\]]*)\]\s+(-?\d+)\s+(\S+)\s+(\d+|-)\s+(\S+)\s+(\d+|-)\s/.exec(`${line} `);
    if (match === null) continue;
    const [, protocol = '', state = '', fd = '', sourceAddress = '', sourcePort = '', destinationAddress = '', destinationPort = ''] = match;
    connections.push({
      protocol,
      state,
      fd: Number(fd),
      sourceAddress,
      sourcePort: portOf(sourcePort),
      destinationAddress,
      destinationPort: portOf(destinationPort),
    });
  }
  return connections;
}

function portOf(text: string): number {
  return text === '-' ? 0 : Number(text);
}

/** The host port that reaches a port of the guest, or undefined when no TCP forward leads there. */
export function forwardedPort(connections: readonly UsernetConnection[], guestPort: number): number | undefined {
  return connections.find(({ protocol, state, destinationPort }) => protocol === 'TCP' && state === 'HOST_FORWARD' && destinationPort === guestPort)
    ?.sourcePort;
}
