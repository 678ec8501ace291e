// `lspci -t`: buses, bridges and what is behind them, as a tree.
// Bridges are believed: a bus is drawn under the bridge that names it as its secondary, once.
import { compareAddresses, identityOf, type LspciFunction } from './function.ts';
import type { Names } from './names.ts';
import { hex } from './text.ts';

export interface TreeOptions {
  readonly names: Names;
  /** From 1 on with names. */
  readonly verbosity: number;
  /** What is left out; bridges to what is shown stay. */
  readonly filter: (fn: LspciFunction) => boolean;
}

interface Bus {
  readonly domain: number;
  readonly first: number;
  readonly last: number;
  readonly functions: readonly Node[];
}

interface Node {
  readonly fn: LspciFunction;
  readonly bus: Bus | undefined;
}

export function treeText(functions: readonly LspciFunction[], options: TreeOptions): string {
  const drawn = new Set<string>();
  const key = (domain: number, bus: number): string => `${domain}:${bus}`;
  const busOf = (domain: number, first: number, last: number): Bus => {
    drawn.add(key(domain, first));
    const own = functions.filter(({ address }) => address.domain === domain && address.bus === first).sort((a, b) => compareAddresses(a.address, b.address));
    const nodes = own.map((fn): Node => {
      const [secondary, subordinate] = [fn.config.u8(0x19), fn.config.u8(0x1a)];
      const leads = identityOf(fn).headerType === 1 && secondary !== 0 && !drawn.has(key(domain, secondary));
      return { fn, bus: leads ? busOf(domain, secondary, subordinate) : undefined };
    });
    return { domain, first, last, functions: nodes.filter(({ fn, bus }) => options.filter(fn) || (bus !== undefined && bus.functions.length > 0)) };
  };
  const behind = new Set(functions.filter((fn) => identityOf(fn).headerType === 1).map((fn) => key(fn.address.domain, fn.config.u8(0x19))));
  const places = [...new Map(functions.map(({ address }) => [key(address.domain, address.bus), address])).values()].sort(compareAddresses);
  const roots: Bus[] = [];
  // First the buses that no bridge leads to; then those that bridges lead to in a circle only.
  for (const known of [false, true]) {
    for (const { domain, bus } of places) {
      if (drawn.has(key(domain, bus)) || behind.has(key(domain, bus)) !== known) continue;
      roots.push(busOf(domain, bus, bus));
    }
  }
  const shown = roots.filter((bus) => bus.functions.length > 0);
  const trunk = shown.map((bus, index): [string, string[]] => [
    `[${hex(bus.domain, 4)}:${hex(bus.first, 2)}]-`, [index === 0 && shown.length === 1 ? '-' : index === shown.length - 1 ? '\\-' : index === 0 ? '-+-' : '+-'],
  ]);
  return shown.map((bus, index) => {
    const [label, [lead = '']] = trunk[index] ?? ['', []];
    const single = shown.length === 1;
    const head = `${single ? '-' : index === 0 ? '-+-' : ` ${lead}`}${label}`;
    const under = single || index === shown.length - 1 ? ' '.repeat(head.length) : ` |${' '.repeat(head.length - 2)}`;
    return busLines(bus, head, under, options);
  }).join('');
}

/** The functions of a bus, the first after `head`, the others under it. */
function busLines(bus: Bus, head: string, under: string, options: TreeOptions): string {
  return bus.functions.map((node, index) => {
    const [first, last] = [index === 0, index === bus.functions.length - 1];
    const joint = first ? (last ? '--' : '+-') : last ? '\\-' : '+-';
    const lead = first ? head : under;
    const below = last ? '  ' : '| ';
    return nodeLines(node, `${lead}${joint}`, `${under}${below}`, options);
  }).join('');
}

function nodeLines({ fn, bus }: Node, lead: string, under: string, options: TreeOptions): string {
  const { address } = fn;
  const place = `${hex(address.device, 2)}.${address.function}`;
  if (bus === undefined) return `${lead}${place}${nameOf(fn, options)}\n`;
  const range = bus.first === bus.last ? `-[${hex(bus.first, 2)}]-` : `-[${hex(bus.first, 2)}-${hex(bus.last, 2)}]-`;
  if (bus.functions.length === 0) return `${lead}${place}${range}${nameOf(fn, options)}\n`;
  return busLines(bus, `${lead}${place}${range}`, `${under}${' '.repeat(place.length + range.length)}`, options);
}

function nameOf(fn: LspciFunction, { names, verbosity }: TreeOptions): string {
  if (verbosity === 0) return '';
  const { vendorId, deviceId } = identityOf(fn);
  return `  ${names.vendorDevice(vendorId, deviceId)}`;
}
