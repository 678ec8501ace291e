// The config spaces of functions without an operating system, as the decoders and lspci's rendering take them.
// Source: PCIe Base 5.0, 7.2.2. Reads only, and no more than config space: what a kernel would say of them is left out.
import { ConfigImage } from '../pci/config-image.ts';
import { CONFIG_BYTES, EXTENDED_CONFIG_BYTES } from '../pci/config-space.ts';
import type { LspciFunction } from '../pci/lspci/index.ts';
import type { ConfigMechanism, PciAddress } from './config-mechanism.ts';

/** In the order given. A function of conventional PCI has 256 bytes: its extended space reads ones. */
export async function readPciFunctions(config: ConfigMechanism, addresses: readonly PciAddress[]): Promise<LspciFunction[]> {
  const functions: LspciFunction[] = [];
  for (const address of addresses) {
    const extended = await config.read(address, CONFIG_BYTES, 4) !== 0xffffffff;
    const words = new DataView(new ArrayBuffer(extended ? EXTENDED_CONFIG_BYTES : CONFIG_BYTES));
    for (let at = 0; at < words.byteLength; at += 4) words.setUint32(at, await config.read(address, at, 4), true);
    const { bus, slot, function: fn } = address;
    functions.push({ address: { domain: 0, bus, device: slot, function: fn }, config: new ConfigImage(new Uint8Array(words.buffer)) });
  }
  return functions;
}
