// What the text of a capability is made from.
import type { ConfigImage } from '../config-image.ts';
import type { Names } from './names.ts';

export interface CapabilityContext {
  readonly config: ConfigImage;
  readonly names: Names;
  /** It is device 0, function 0 of its bus: the one that has the link's registers. */
  readonly first: boolean;
  /** 1 to 3, as -v to -vvv. */
  readonly verbosity: number;
  readonly vendorId: number;
  readonly deviceId: number;
  /** Base class and subclass. */
  readonly classId: number;
  /** PCIe device/port type of the function, once its PCI Express capability was met. */
  readonly pcieType: number | undefined;
}

/** The text after `Capabilities: [40] `, with its line ends; `offset` is the capability's. */
export type CapabilityText = (context: CapabilityContext, offset: number) => string;

/** More than the first line was asked for, and its bytes were read. */
export function inDetail({ config, verbosity }: CapabilityContext, offset: number, sizeBytes: number): boolean {
  return verbosity > 1 && config.has(offset, sizeBytes);
}
