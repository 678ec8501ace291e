// `lspci -t`: buses, bridges and what is behind them, a tree a domain.
// A bus hangs on the last bridge whose range holds it, as lspci has it; buses that bridges lead to in a circle are on
// no root, and are not drawn. What is drawn under a function is drawn once.
import { identityOf, type LspciFunction } from './function.ts';
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
  readonly number: number;
  readonly nodes: Node[];
}

interface Node {
  readonly fn: LspciFunction;
  /** What a bridge leads to, its secondary bus first; undefined of what is no bridge. */
  readonly buses: Bus[] | undefined;
}

/** `functions` in the order of their addresses. */
export function treeText(functions: readonly LspciFunction[], options: TreeOptions): string {
  const domains = [...new Set(functions.map(({ address }) => address.domain))];
  return domains.map((domain) => {
    const roots = rootsOf(functions.filter(({ address }) => address.domain === domain)).map((bus) => filtered(bus, options)).filter(({ nodes }) => nodes.length > 0);
    return roots.length === 0 ? '' : drawBuses(domain, roots, roots.length === 1 ? '-' : '', roots.length === 1 ? ' ' : '', options);
  }).join('');
}

/** The buses that no bridge leads to. */
function rootsOf(functions: readonly LspciFunction[]): Bus[] {
  const bridges: { from: number; to: number; buses: Bus[] }[] = [];
  const nodes = functions.map((fn): Node => {
    if (identityOf(fn).headerType !== 1) return { fn, buses: undefined };
    const [from, to] = [fn.config.u8(0x19), fn.config.u8(0x1a)];
    const buses: Bus[] = [{ number: from, nodes: [] }];
    bridges.push({ from, to, buses });
    return { fn, buses };
  });
  const roots: Bus[] = [];
  for (const node of nodes) {
    const number = node.fn.address.bus;
    const siblings = bridges.findLast(({ from, to }) => from <= number && number <= to)?.buses ?? roots;
    let bus = siblings.find((one) => one.number === number);
    if (bus === undefined) siblings.push(bus = { number, nodes: [] });
    bus.nodes.push(node);
  }
  return roots;
}

function filtered({ number, nodes }: Bus, options: TreeOptions): Bus {
  const kept = nodes.map(({ fn, buses }): Node => ({ fn, buses: buses?.map((bus) => filtered(bus, options)) }));
  return { number, nodes: kept.filter(({ fn, buses }) => options.filter(fn) || buses?.some((bus) => bus.nodes.length > 0) === true) };
}

/** Something that is drawn after `lead`, its further lines after `under`. */
type Drawing = (lead: string, under: string) => string;

/** Several side by side, after `lead`. */
function branch(drawings: readonly Drawing[], lead: string, under: string): string {
  const [only] = drawings;
  if (only === undefined) return `${lead}-\n`;
  if (drawings.length === 1) return only(`${lead}---`, `${under}   `);
  return drawings.map((draw, index) => {
    const last = index === drawings.length - 1;
    return draw(index === 0 ? `${lead}-+-` : `${under} ${last ? '\\' : '+'}-`, `${under} ${last ? ' ' : '|'} `);
  }).join('');
}

function drawBuses(domain: number, buses: readonly Bus[], lead: string, under: string, options: TreeOptions): string {
  const drawings = buses.map((bus): Drawing => (ownLead, ownUnder) => {
    const label = `[${hex(domain, 4)}:${hex(bus.number, 2)}]`;
    return drawNodes(domain, bus, `${ownLead}${label}`, `${ownUnder}${' '.repeat(label.length)}`, options);
  });
  const [only] = drawings;
  return drawings.length === 1 && only !== undefined ? only(lead, under) : branch(drawings, lead, under);
}

function drawNodes(domain: number, { nodes }: Bus, lead: string, under: string, options: TreeOptions): string {
  return branch(nodes.map((node): Drawing => (ownLead, ownUnder) => drawNode(domain, node, ownLead, ownUnder, options)), lead, under);
}

function drawNode(domain: number, { fn, buses }: Node, lead: string, under: string, options: TreeOptions): string {
  const place = `${hex(fn.address.device, 2)}.${fn.address.function}`;
  if (buses === undefined) return `${lead}${place}${nameOf(fn, options)}\n`;
  const [from, to] = [fn.config.u8(0x19), fn.config.u8(0x1a)];
  const range = from === 0 ? '-' : from === to ? `-[${hex(from, 2)}]-` : `-[${hex(from, 2)}-${hex(to, 2)}]-`;
  const below = `${under}${' '.repeat(place.length + range.length)}`;
  const [first] = buses;
  return buses.length === 1 && first !== undefined
    ? drawNodes(domain, first, `${lead}${place}${range}`, below, options)
    : drawBuses(domain, buses, `${lead}${place}${range}`, below, options);
}

function nameOf(fn: LspciFunction, { names, verbosity }: TreeOptions): string {
  if (verbosity === 0) return '';
  const { vendorId, deviceId } = identityOf(fn);
  return `  ${names.vendorDevice(vendorId, deviceId)}`;
}
