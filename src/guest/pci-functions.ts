// Every PCI function of the guest, with its config space and what its kernel says of it, in one question.
// Source: Linux Documentation/ABI/testing/sysfs-bus-pci; kmod's modprobe for the modules. Reads only.
import { ProtocolError } from '../errors.ts';
import { ConfigImage } from '../pci/config-image.ts';
import { type KernelResource, type KernelView, type LspciFunction, parseAddress, type PciAddress } from '../pci/lspci/index.ts';
import type { Guest } from './guest.ts';

/**
 * A line a fact: `@` the address, then name and value; config space is base64 over several lines. Files that are not
 * there say nothing. The shell's own read, not cat: a process costs
 * milliseconds in a guest under TCG. kmod's modprobe by its path: busybox' shell would take its own, which has no -R.
 */
const SCRIPT = `
for s in /sys/bus/pci/slots/*/address; do n=\${s%/address}; [ -e "$s" ] && read a <"$s" && echo "slot \${n##*/} $a"; done
cd /sys/bus/pci/devices
for d in *; do
  echo "@ $d"
  echo "config"; base64 $d/config
  while read r; do echo "resource $r"; done <$d/resource
  for f in irq numa_node label; do [ -e $d/$f ] && read v <$d/$f 2>/dev/null && echo "$f $v"; done
  for l in driver iommu_group; do [ -e $d/$l ] && t=$(readlink $d/$l) && echo "$l \${t##*/}"; done
  [ -z "$MODULES" ] || { read a <$d/modalias; for m in $(/usr/sbin/modprobe -R "$a" 2>/dev/null); do echo "module $m"; done; }
done
`;

export interface ReadPciOptions {
  /** Ask modprobe, too, which modules fit each function: a process each. Default false. */
  readonly modules?: boolean;
  readonly timeoutMs?: number;
}

/**
 * In the order of their addresses. A function that goes meanwhile is left out.
 * @throws ProtocolError when sysfs says what it should not
 */
export async function readPciFunctions(guest: Pick<Guest, 'run'>, { modules = false, timeoutMs = 120_000 }: ReadPciOptions = {}): Promise<LspciFunction[]> {
  const { stdout } = await guest.run(modules ? `MODULES=1${SCRIPT}` : SCRIPT, { timeoutMs });
  const [head = '', ...records] = stdout.split(/^@ /m);
  const slots = new Map<string, string>();
  for (const [, name = '', address = ''] of head.matchAll(/^slot (\S+) (\S+)$/gm)) slots.set(address, name);
  return records.map((record) => functionOf(record, slots)).filter((fn) => fn.config.sizeBytes >= 64);
}

function functionOf(record: string, slots: ReadonlyMap<string, string>): LspciFunction {
  const [place = '', ...lines] = record.split('\n');
  const address: PciAddress | undefined = parseAddress(place.trim());
  if (address === undefined) throw new ProtocolError(`sysfs names a PCI function ${JSON.stringify(place)}`, { received: record });
  const all = (name: string): string[] => lines.filter((line) => line.startsWith(`${name} `)).map((line) => line.slice(name.length + 1).trim());
  const text = (name: string): string | undefined => all(name)[0] || undefined;
  const numaNode = Number(text('numa_node') ?? -1);
  const kernel: KernelView = {
    resources: all('resource').map(resourceOf),
    irq: Number(text('irq') ?? 0),
    driver: text('driver'),
    modules: all('module'),
    physicalSlot: slots.get(place.trim().replace(/\.\d$/, '')),
    numaNode: numaNode < 0 ? undefined : numaNode,
    iommuGroup: text('iommu_group'),
    label: text('label'),
  };
  // Base64 is whatever has no blank.
  const config = lines.slice(lines.indexOf('config') + 1).filter((line) => !line.includes(' ')).join('');
  return { address, config: new ConfigImage(new Uint8Array(Buffer.from(config, 'base64'))), kernel };
}

function resourceOf(line: string): KernelResource {
  const [start = 0n, end = 0n, flags = 0n] = line.trim().split(' ').map((word) => BigInt(word));
  return { start, end, flags };
}
