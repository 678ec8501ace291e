// What kind of PCI Express function it is: the number of the capability's register. Source: PCIe Base 6.0, 7.5.3.2.
import { field } from '../../bit-names.ts';
import type { ConfigImage } from '../../config-image.ts';

/** Device/Port Type (7.5.3.2), as numbers. */
export const PCIE_TYPE = {
  ENDPOINT: 0, LEGACY_ENDPOINT: 1, ROOT_PORT: 4, UPSTREAM_PORT: 5, DOWNSTREAM_PORT: 6, PCIE_TO_PCI: 7, PCI_TO_PCIE: 8, INTEGRATED_ENDPOINT: 9, EVENT_COLLECTOR: 10,
} as const;

/** Device/Port Type of the capability at `offset`. */
export function pcieTypeAt(config: ConfigImage, offset: number): number {
  return field(config.u16(offset + 2), 4, 4);
}
