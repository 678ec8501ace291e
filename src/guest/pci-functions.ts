// Every PCI function of the guest, with its config space and what its kernel says of it, in one question.
// Source: Linux Documentation/ABI/testing/sysfs-bus-pci; kmod's modprobe for the modules. Reads only.
import { ProtocolError } from '../errors.ts';
import { ConfigImage } from '../pci/config-image.ts';
import { type KernelResource, type KernelView, type LspciFunction, parseAddress, type PciAddress } from '../pci/lspci/index.ts';
import type { Guest } from './guest.ts';

/** A line a fact: `@` the address, then name and value. Files that are not there say nothing. */
const SCRIPT = String.raw`
for s in /sys/bus/pci/slots/*/address; do [ -e "$s" ] && n=\${s%/address} && echo "slot \${n##*/} $(cat $s)"; done
for d in /sys/bus/pci/devices/*; do
  echo "@ \${d##*/}"
  echo "config $(base64 $d/config | tr -d '\n')"
  echo "resource $(tr '\n' ';' <$d/resource)"
  for f in irq numa_node label; do [ -e $d/$f ] && echo "$f $(cat $d/$f 2>/dev/null)"; done
  for l in driver iommu_group; do [ -e $d/$l ] && t=$(readlink $d/$l) && echo "$l \${t##*/}"; done
  echo "modules $(modprobe -R $(cat $d/modalias) 2>/dev/null | tr '\n' ' ')"
done
`.replaceAll('\\$', '$');

/**
 * In the order of their addresses. A function that goes meanwhile is left out.
 * @throws ProtocolError when sysfs says what it should not
 */
export async function readPciFunctions(guest: Pick<Guest, 'run'>): Promise<LspciFunction[]> {
  const { stdout } = await guest.run(SCRIPT);
  const [head = '', ...records] = stdout.split(/^@ /m);
  const slots = new Map<string, string>();
  for (const [, name = '', address = ''] of head.matchAll(/^slot (\S+) (\S+)$/gm)) slots.set(address, name);
  return records.map((record) => functionOf(record, slots)).filter((fn) => fn.config.sizeBytes >= 64);
}

function functionOf(record: string, slots: ReadonlyMap<string, string>): LspciFunction {
  const [place = '', ...lines] = record.split('\n');
  const address: PciAddress | undefined = parseAddress(place.trim());
  if (address === undefined) throw new ProtocolError(`sysfs names a PCI function ${JSON.stringify(place)}`, { received: record });
  const facts = new Map(lines.map((line): [string, string] => [line.split(' ', 1)[0] ?? '', line.slice(line.indexOf(' ') + 1).trim()]));
  const text = (name: string): string | undefined => facts.get(name) || undefined;
  const numaNode = Number(text('numa_node') ?? -1);
  const kernel: KernelView = {
    resources: (text('resource') ?? '').split(';').filter((line) => line !== '').map(resourceOf),
    irq: Number(text('irq') ?? 0),
    driver: text('driver'),
    modules: (text('modules') ?? '').split(/\s+/).filter((name) => name !== ''),
    physicalSlot: slots.get(place.trim().replace(/\.\d$/, '')),
    numaNode: numaNode < 0 ? undefined : numaNode,
    iommuGroup: text('iommu_group'),
    label: text('label'),
  };
  return { address, config: new ConfigImage(new Uint8Array(Buffer.from(text('config') ?? '', 'base64'))), kernel };
}

function resourceOf(line: string): KernelResource {
  const [start = 0n, end = 0n, flags = 0n] = line.trim().split(' ').map((word) => BigInt(word));
  return { start, end, flags };
}
