// The qtest protocol's lines: commands that are sent, answers and interrupt lines that come back.
// Source: QEMU system/qtest.c ("QTest Protocol"). Not here: the connection (client.ts). Commands that
// QEMU would end itself over (g_assert on a malformed word) are refused here, before they are sent.
import { ProtocolError, UsageError } from '../errors.ts';
import type { AccessWidth, ConfigWidth } from '../pci/access.ts';

/** A line from QEMU. */
export type QtestLine =
  | { readonly kind: 'answer'; readonly words: readonly string[] }
  | { readonly kind: 'refusal'; readonly description: string }
  /** An intercepted interrupt line moved. */
  | { readonly kind: 'irq'; readonly line: number; readonly level: 0 | 1 };

/** @throws ProtocolError for a line that is none of the protocol's. */
export function parseLine(line: string): QtestLine {
  const [first, ...words] = line.split(' ');
  if (first === 'OK') return { kind: 'answer', words };
  if (first === 'FAIL' || first === 'ERR') return { kind: 'refusal', description: words.join(' ') };
  const irq = /^IRQ (raise|lower) (\d+)$/.exec(line);
  if (irq !== null) return { kind: 'irq', line: Number(irq[2]), level: irq[1] === 'raise' ? 1 : 0 };
  throw new ProtocolError(`qtest: QEMU sent ${JSON.stringify(line.slice(0, 200))}`, { received: line });
}

const SUFFIX = { 1: 'b', 2: 'w', 4: 'l', 8: 'q' } as const;

export function formatIoRead(port: number, width: ConfigWidth): string {
  return `in${SUFFIX[width]} ${hex(checkPort(port, width))}`;
}

export function formatIoWrite(port: number, width: ConfigWidth, value: number): string {
  return `out${SUFFIX[width]} ${hex(checkPort(port, width))} ${hex(checkValue(BigInt(value), width))}`;
}

export function formatMemoryRead(address: bigint, width: AccessWidth): string {
  return `read${SUFFIX[width]} ${hex(checkAddress(address, width))}`;
}

export function formatMemoryWrite(address: bigint, width: AccessWidth, value: bigint): string {
  return `write${SUFFIX[width]} ${hex(checkAddress(address, width))} ${hex(checkValue(value, width))}`;
}

export function formatBlockRead(address: bigint, lengthBytes: number): string {
  return `b64read ${hex(checkAddress(address, lengthBytes))} ${hex(lengthBytes)}`;
}

export function formatBlockWrite(address: bigint, bytes: Uint8Array): string {
  const at = checkAddress(address, bytes.length);
  return `b64write ${hex(at)} ${hex(bytes.length)} ${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')}`;
}

export function formatFill(address: bigint, lengthBytes: number, byte: number): string {
  return `memset ${hex(checkAddress(address, lengthBytes))} ${hex(lengthBytes)} ${hex(checkValue(BigInt(byte), 1))}`;
}

/** A QOM path, or as much of one as is unambiguous: `ioapic`. */
export function formatIntercept(direction: 'in' | 'out', path: string): string {
  if (!/^[\w/.:[\]-]+$/.test(path)) throw new UsageError(`qtest: ${JSON.stringify(path)} is no QOM path`);
  return `irq_intercept_${direction} ${path}`;
}

/** The number an answer carries. */
export function valueOf(words: readonly string[], command: string): bigint {
  const [word = ''] = words;
  if (words.length !== 1 || !/^0x[0-9a-f]+$/i.test(word)) {
    throw new ProtocolError(`qtest ${command}: an answer without its number`, { sent: command, received: words.join(' ') });
  }
  return BigInt(word);
}

function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}

function checkPort(port: number, width: number): number {
  if (!Number.isInteger(port) || port < 0 || port + width > 0x10000) throw new UsageError(`qtest: there is no I/O port ${port} of ${width} bytes`);
  return port;
}

function checkAddress(address: bigint, lengthBytes: number): bigint {
  if (!Number.isInteger(lengthBytes) || lengthBytes < 1) throw new UsageError(`qtest: ${lengthBytes} bytes of memory asked for`);
  if (address < 0n || address + BigInt(lengthBytes) > 1n << 64n) throw new UsageError(`qtest: there is no memory address ${address}`);
  return address;
}

function checkValue(value: bigint, width: number): bigint {
  if (BigInt.asUintN(8 * width, value) !== value) throw new UsageError(`qtest: ${value} does not fit into ${width} bytes`);
  return value;
}
