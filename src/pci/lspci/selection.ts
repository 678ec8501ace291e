// Which functions -s and -d leave: `[[[[domain]:]bus]:][device][.[function]]` and `[vendor]:[device][:class[:prog-if]]`.
// Source: lspci(8).
import { UsageError } from '../../errors.ts';
import { identityOf, type LspciFunction } from './function.ts';

/** A field that is left out takes every value. */
export interface Selection {
  readonly domain?: number | undefined;
  readonly bus?: number | undefined;
  readonly device?: number | undefined;
  readonly function?: number | undefined;
  readonly vendorId?: number | undefined;
  readonly deviceId?: number | undefined;
  readonly classId?: number | undefined;
  readonly programmingInterface?: number | undefined;
}

export function selected(fn: LspciFunction, selection: Selection | undefined): boolean {
  if (selection === undefined) return true;
  const { address } = fn;
  const id = identityOf(fn);
  const pairs: [number | undefined, number][] = [
    [selection.domain, address.domain], [selection.bus, address.bus], [selection.device, address.device], [selection.function, address.function],
    [selection.vendorId, id.vendorId], [selection.deviceId, id.deviceId], [selection.classId, id.classId], [selection.programmingInterface, id.programmingInterface],
  ];
  return pairs.every(([wanted, is]) => wanted === undefined || wanted === is);
}

/** What follows -s. Throws a UsageError for what is no slot. */
export function parseSlot(text: string): Selection {
  const match = /^(?:(?:([^:.]*):)?([^:.]*):)?([^:.]*)(?:\.([^:.]*))?$/.exec(text);
  if (match === null) throw invalid('-s', text, 'a slot', '[[[[domain]:]bus]:][device][.[function]]');
  const [, domain, bus, device, fn] = match;
  const number = (word: string | undefined, most: number, what: string): number | undefined => hexOrAny(word, most, '-s', what);
  return { domain: number(domain, 0xffffffff, 'domain'), bus: number(bus, 0xff, 'bus'), device: number(device, 0x1f, 'slot'), function: number(fn, 7, 'function') };
}

/** What follows -d. Throws a UsageError for what are no ids. */
export function parseIds(text: string): Selection {
  const match = /^([^:]*):([^:]*)(?::([^:]*)(?::([^:]*))?)?$/.exec(text);
  if (match === null) throw invalid('-d', text, 'a pair of ids', '[vendor]:[device][:class[:prog-if]]');
  const [, vendor, device, classId, programmingInterface] = match;
  const number = (word: string | undefined, most: number, what: string): number | undefined => hexOrAny(word, most, '-d', what);
  return {
    vendorId: number(vendor, 0xffff, 'vendor ID'), deviceId: number(device, 0xffff, 'device ID'), classId: number(classId, 0xffff, 'class code'),
    programmingInterface: number(programmingInterface, 0xff, 'programming interface'),
  };
}

function hexOrAny(word: string | undefined, most: number, option: string, what: string): number | undefined {
  if (word === undefined || word === '' || word === '*') return undefined;
  const value = /^(?:0x)?[0-9a-f]{1,8}$/i.test(word) ? Number.parseInt(word, 16) : Number.NaN;
  if (!(value <= most)) throw invalid(option, word, `a ${what}`, `a hexadecimal number up to ${most.toString(16)}, or nothing for any`);
  return value;
}

function invalid(option: string, text: string, what: string, form: string): UsageError {
  return new UsageError(`${option}: ${JSON.stringify(text)} is not ${what}`, { hint: `its form is ${form}` });
}
