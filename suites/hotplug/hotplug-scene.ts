// What the suites of this folder share: devices plugged and in use, and the ways in which a machine's hot-plug has them
// go. Native: pciehp's slot, whose button takes 5 s to take effect unless the slot's power is switched off meanwhile.
import { expect } from '@jest/globals';
import { EDU, edu, virtioBlk, type BusPlace, type GuestProcess, type PciFunction, type UnplugReport, type VirtioBlk } from 'rootport';
import type { TestMachine } from 'rootport/jest';

export interface ReadingDisk {
  readonly disk: VirtioBlk;
  readonly fn: PciFunction;
  /** The read for whose answer its driver waits. */
  readonly io: GuestProcess;
}

export class HotplugScene {
  readonly #vm: TestMachine;
  readonly #native: boolean;

  constructor(vm: TestMachine, { native }: { readonly native: boolean }) {
    this.#vm = vm;
    this.#native = native;
  }

  /** A command of the guest's: switch off the power of a function's slot, as an operator would. */
  powerOff(fn: PciFunction): string {
    return `for slot in /sys/bus/pci/slots/*; do [ "$(cat $slot/address)" != ${fn.bdf.slice(0, -2)} ] || echo 0 >$slot/power; done`;
  }

  /** The name of its slot in /sys/bus/pci/slots. */
  async slotOf(fn: PciFunction): Promise<string> {
    return (await this.#vm.guest.run(`grep -lx ${fn.bdf.slice(0, -2)} /sys/bus/pci/slots/*/address`)).stdout.split('/').at(-2) ?? '';
  }

  /** Of the 5 s for which pciehp waits after its button was pressed, no more than it takes it to blink (PCIe Base 5.0, 7.5.3.10). */
  async hurry(fn: PciFunction): Promise<void> {
    const blinks = `[ $((0x$(setpci -s ${await this.portOf(fn)} CAP_EXP+18.w) & 0x300)) = 512 ]`;
    await this.#vm.guest.until(blinks, 'the slot\'s indicator to blink', 10_000);
    await this.#vm.guest.start(this.powerOff(fn));
  }

  /** The bridge above it, `0000:00:10.0`. */
  async portOf(fn: PciFunction): Promise<string> {
    return (await this.#vm.guest.run(`basename $(dirname $(readlink -f ${fn.sysfs}))`)).stdout.trim();
  }

  /** By QMP's device_del, and no longer than it takes. */
  asked(fn: PciFunction): Promise<UnplugReport> {
    return this.#vm.unplug(fn, this.#native ? {
      request: async () => {
        await this.#vm.qmp.execute('device_del', { id: fn.id });
        await this.hurry(fn);
      },
    } : {});
  }

  /** The orderly way that is the quickest here. */
  orderly(fn: PciFunction): Promise<UnplugReport> {
    return this.#vm.unplug(fn, this.#native ? { request: () => this.#vm.guest.start(this.powerOff(fn)) } : {});
  }

  deleted(fn: PciFunction): Promise<unknown> {
    return this.#vm.qmp.expectEvent('DEVICE_DELETED', ({ data }) => data?.['device'] === fn.id, { timeoutMs: 30_000, what: `DEVICE_DELETED of ${fn.id}`, signal: this.#vm.signal });
  }

  /** To QEMU. */
  async isThere(fn: PciFunction): Promise<boolean> {
    return fn.vmm().then(() => true, () => false);
  }

  /** The probe's driver callbacks for it, in order. */
  async callbacks(fn: PciFunction): Promise<string[]> {
    return (await this.#vm.probeEvents(fn)).map(({ kind, detail }) => `${kind} ${detail}`.trim());
  }

  /** Edu answers through its driver, which is the probe. */
  async plugProbed(port?: string | BusPlace): Promise<PciFunction> {
    const fn = await this.#vm.plug(edu(), port === undefined ? {} : { port });
    const probe = await this.#vm.probe(fn);
    await probe.enableVectors({ kind: 'msi' });
    expect(await probe.memRead(0, EDU.IDENTIFICATION, 4)).toBe(0x010000edn);
    return fn;
  }

  /** A disk whose driver waits for an answer; and the read that it waits for. */
  async plugReading(): Promise<ReadingDisk> {
    const disk = virtioBlk({ capacityBytes: 2 ** 20 });
    const fn = await this.#vm.plug(disk);
    const name = (await this.#vm.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim();
    disk.queue(0).hold();
    const io = await this.#vm.guest.start(`dd if=/dev/${name} of=/dev/null bs=4k count=1 iflag=direct`);
    await disk.queue(0).nextRequest();
    return { disk, fn, io };
  }
}
