// What the suites of this folder share: a disk in a machine, requests to it, and what the kernel logs meanwhile.
import { expect } from '@jest/globals';
import { virtioBlk, type GuestProcess, type PciFunction, type VirtioBlk, type VirtioBlkOptions } from 'rootport';
import type { TestMachine } from 'rootport/jest';

/** Long enough for anything that is going to end to have ended. */
export const HANG_MS = 1000;

/** The status byte of virtio 1.2, 5.2.6. */
export const STATUS = { ok: 0, ioError: 1, unsupported: 2 } as const;

export interface PluggedDisk {
  readonly disk: VirtioBlk;
  readonly fn: PciFunction;
  /** `vdb` */
  readonly name: string;
}

/** One request: `block` of 4 KiB, past the cache, to standard output. */
export const readBlock = (name: string, block = 0): string => `dd if=/dev/${name} bs=4k skip=${block} count=1 iflag=direct 2>/dev/null`;

export class DiskScene {
  readonly #vm: TestMachine;

  constructor(vm: TestMachine) {
    this.#vm = vm;
  }

  /** A disk of 1 MiB, full of Z. */
  async plug(options: Partial<VirtioBlkOptions> = {}): Promise<PluggedDisk> {
    const disk = virtioBlk({ capacityBytes: 2 ** 20, ...options });
    disk.bytes.fill('Z');
    const fn = await this.#vm.plug(disk);
    return { disk, fn, name: await this.nameOf(fn) };
  }

  async nameOf(fn: PciFunction): Promise<string> {
    return (await this.#vm.guest.run(`ls ${fn.sysfs}/virtio*/block`)).stdout.trim();
  }

  /** All that the kernel logs while `work` runs, less the times, and what comes late of the harness's own network card. */
  async kernelLog(work: () => Promise<unknown>): Promise<string[]> {
    const { length } = await this.#logLines();
    await work();
    return (await this.#logLines()).slice(length);
  }

  async #logLines(): Promise<string[]> {
    const lines = (await this.#vm.guest.dmesg()).trimEnd().split('\n').map((line) => line.replace(/^\[[^\]]*\] /, '').trimEnd());
    return lines.filter((line) => !/\beth0: link becomes ready/.test(line));
  }

  /** It has not ended, and the block layer counts one request in flight. */
  async expectHanging(io: GuestProcess, name: string): Promise<void> {
    await expect(io.settled({ timeoutMs: HANG_MS })).rejects.toThrow(`waited ${HANG_MS / 1000} s`);
    expect((await this.#vm.guest.run(`cat /sys/block/${name}/inflight`)).stdout.trim().split(/\s+/)).toEqual(['1', '0']);
  }

  /** How many interrupts of a vector no handler wanted; the kernel starts anew after 100 ms without one. */
  async unhandled(fn: PciFunction, vector: number): Promise<number> {
    const { stdout } = await this.#vm.guest.run(`cat /proc/irq/$(ls ${fn.sysfs}/msi_irqs | sort -n | sed -n ${vector + 1}p)/spurious`);
    return Number(/unhandled (\d+)/.exec(stdout)?.[1]);
  }
}
