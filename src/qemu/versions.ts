// What is known of QEMU's versions: qemu/versions.json, and questions to it.
import { readFileSync } from 'node:fs';
import { packageFile } from '../packages/index.ts';
import type { TcgThread } from './preset.ts';

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  /** Whole, as QEMU or its package gives it: `10.0.2+ds-1`. */
  readonly text: string;
}

interface Versions {
  readonly oldest: string;
  readonly default: string;
  readonly racyMultiThreadedTcg: { readonly from: string; readonly before: string };
  readonly vhostUserNetNeedsIrqfd: { readonly before: string };
  readonly reconnectInMs: { readonly from: string };
}

export function knownVersions(): Versions {
  return JSON.parse(readFileSync(packageFile('qemu/versions.json'), 'utf8')) as Versions;
}

/** `wanted` is `'10.0'`. */
export function isAtLeast({ major, minor }: QemuVersion, wanted: string): boolean {
  const [wantedMajor = 0, wantedMinor = 0] = wanted.split('.').map(Number);
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}

/**
 * How several CPUs run under TCG when nobody says. In a thread each, except where that is racy: there a CPU can
 * use the section number of an old memory map in a new one, when another CPU or the monitor changes the map (a
 * BAR enabled or moved, a device plugged). QEMU then aborts in iotlb_to_section, hangs, or reads another device:
 * with 10.0 some 4 reads of the HPET in 50,000 changes came from elsewhere; with 7.2 and 11.1 none in 100,000;
 * with one thread none either. (system/physmem.c: since 8.1 tcg_commit only queues the flush of the CPUs' TLBs.)
 */
export function defaultTcgThread(version: QemuVersion): TcgThread {
  const { from, before } = knownVersions().racyMultiThreadedTcg;
  return isAtLeast(version, from) && !isAtLeast(version, before) ? 'single' : 'multi';
}

/**
 * Whether a vhost-user network card can have MSI-X vectors. QEMU 7.2 dereferences null when the driver of one
 * starts under TCG, which has no irqfds (hw/virtio/virtio-pci.c: the vector notifiers are set although
 * use_guest_notifier_mask is off and vector_irqfd was not allocated); 10.0 and 11.1 do not. None between was tried.
 */
export function vhostUserNetHasVectors(version: QemuVersion, accel: 'kvm' | 'tcg'): boolean {
  return accel === 'kvm' || isAtLeast(version, knownVersions().vhostUserNetNeedsIrqfd.before);
}

/** A socket chardev's property to connect again as soon as it can: a tenth of a second, or the second that older ones count in. */
export function reconnectProperty(version: QemuVersion): Readonly<Record<string, number>> {
  return isAtLeast(version, knownVersions().reconnectInMs.from) ? { 'reconnect-ms': 100 } : { reconnect: 1 };
}
