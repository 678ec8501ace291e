// The MSI capability. Source: PCI Local Bus 3.0, 6.8.1; PCIe Base 5.0, 7.7.1. MSI-X is in msix.ts.
import { CAPABILITY_ID, checkExtent, findCapability, readCapabilities } from './capabilities.ts';
import type { ConfigReader } from './config-space.ts';

export interface MsiCapability {
  /** Of the capability, in config space. */
  readonly offset: number;
  readonly enabled: boolean;
  /** Vectors that the function asks for, and those that software granted: 1, 2, 4 ... 32. */
  readonly vectorsRequested: number;
  readonly vectorsEnabled: number;
  readonly is64Bit: boolean;
  readonly maskable: boolean;
  readonly address: bigint;
  readonly data: number;
  /** A bit a vector; undefined when the function has no per-vector masking. */
  readonly mask: number | undefined;
  readonly pending: number | undefined;
}

/** The function's MSI capability, or undefined when it has none. */
export async function readMsiCapability(reader: ConfigReader): Promise<MsiCapability | undefined> {
  const found = findCapability(await readCapabilities(reader), CAPABILITY_ID.MSI);
  if (found === undefined) return undefined;
  checkExtent(found, 4);
  const { offset } = found;
  const control = await reader.configRead(offset + 0x2, 2);
  const is64Bit = (control & 0x80) !== 0;
  const maskable = (control & 0x100) !== 0;
  checkExtent(found, (is64Bit ? 14 : 10) + (maskable ? 10 : 0));
  const low = await reader.configRead(offset + 0x4, 4);
  const high = is64Bit ? await reader.configRead(offset + 0x8, 4) : 0;
  const masks = offset + (is64Bit ? 0x10 : 0xc);
  return {
    offset,
    enabled: (control & 0x1) !== 0,
    vectorsRequested: 2 ** ((control >> 1) & 7),
    vectorsEnabled: 2 ** ((control >> 4) & 7),
    is64Bit,
    maskable,
    address: (BigInt(high) << 32n) | BigInt(low),
    data: await reader.configRead(offset + (is64Bit ? 0xc : 0x8), 2),
    mask: maskable ? await reader.configRead(masks, 4) : undefined,
    pending: maskable ? await reader.configRead(masks + 4, 4) : undefined,
  };
}
