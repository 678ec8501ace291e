// One PCI function that rootport_probe is bound to: its config space, BARs, vectors and a DMA buffer,
// accessed by the guest's kernel on the test's behalf. Every call is one command, about 1 ms.
// Not here: binding (probe.ts), the text of commands and answers (probe-protocol.ts).
import { DeadlineError, UsageError } from '../errors.ts';
import type { AccessWidth, ConfigWidth, PciAccess } from '../pci/access.ts';
import { decodeMsixEntry, encodeMsixEntry, type MsixEntry } from '../pci/msix.ts';
import { askScript, checkBdf, DMA_WRITE_BYTES, errnoNameOf, formatNumber, parseAnswer, parseCounts, parsePending, unexpected } from './probe-protocol.ts';
import type { AnswerLength, ProbeAnswer, VectorCount, VectorKind } from './probe-protocol.ts';

/** What the probe needs of a guest; Guest is one. */
export interface ProbeGuest {
  /** For short commands, one after the other. */
  readonly shell: { run(command: string): Promise<{ readonly stdout: string; readonly stderr: string }> };
  /** On a channel of its own, for a command that waits. */
  run(command: string, options: { timeoutMs: number }): Promise<{ readonly stdout: string }>;
}

/** How the handler tells this device's interrupt and quiets it: read status; if not 0, write it to acknowledge. */
export interface AcknowledgeRule {
  readonly bar: number;
  readonly width: AccessWidth;
  readonly statusOffset: number;
  /** Undefined: reading the status is enough (virtio's ISR). */
  readonly acknowledgeOffset?: number;
}

/** Memory that the device can reach, in the guest. At most one a function. */
export interface DmaBuffer {
  /** The address that the device is to be given. */
  readonly busAddress: bigint;
  readonly sizeBytes: number;
  read(offset: number, lengthBytes: number): Promise<Buffer>;
  write(offset: number, bytes: Uint8Array): Promise<void>;
  free(): Promise<void>;
}

/**
 * Rejects with a UsageError when the module refuses what the caller can mend (a bad offset, a second
 * allocation), else with a ProtocolError (ENODEV: not bound any more); `errnoNameOf(error)` tells which.
 * Allocated vectors and the buffer go when the function is unbound.
 */
export class ProbedFunction implements PciAccess {
  readonly #guest: ProbeGuest;
  /** As many as were last seen: how long a list of counts will be. */
  #vectors = 0;

  constructor(
    guest: ProbeGuest,
    /** `0000:01:00.0` */
    readonly bdf: string,
    /** The driver that the probe took it from. */
    readonly previousDriver: string | undefined,
  ) {
    this.#guest = guest;
    checkBdf(bdf);
  }

  async configRead(offset: number, width: ConfigWidth): Promise<number> {
    return this.#number(`config read ${width * 8} ${formatNumber(offset, 'offset')}`);
  }

  async configWrite(offset: number, width: ConfigWidth, value: number): Promise<void> {
    await this.#ask(`config write ${width * 8} ${formatNumber(offset, 'offset')} ${formatNumber(value, 'value')}`);
  }

  async memRead(bar: number, offset: number, width: AccessWidth): Promise<bigint> {
    return this.#bigint(`mem read ${width * 8} ${bar} ${formatNumber(offset, 'offset')}`);
  }

  async memWrite(bar: number, offset: number, width: AccessWidth, value: bigint): Promise<void> {
    await this.#ask(`mem write ${width * 8} ${bar} ${formatNumber(offset, 'offset')} ${formatNumber(value, 'value')}`);
  }

  async ioRead(bar: number, offset: number, width: ConfigWidth): Promise<number> {
    return this.#number(`io read ${width * 8} ${bar} ${formatNumber(offset, 'offset')}`);
  }

  async ioWrite(bar: number, offset: number, width: ConfigWidth, value: number): Promise<void> {
    await this.#ask(`io write ${width * 8} ${bar} ${formatNumber(offset, 'offset')} ${formatNumber(value, 'value')}`);
  }

  /**
   * Follow a BAR that was moved by a config write: later accesses go where its register points now.
   * Returns that address. EBUSY for an address that is the guest's memory or another device's.
   */
  async remapBar(bar: number): Promise<bigint> {
    return this.#bigint(`bar remap ${bar}`);
  }

  /** Allocate vectors and count on each. All or none: EOPNOTSUPP, ENOSPC or EBUSY else. INTx: see setAcknowledge. */
  async enableVectors({ kind, count = 1 }: { readonly kind: VectorKind; readonly count?: number }): Promise<VectorCount[]> {
    await this.#ask(`irq alloc ${kind} ${count}`);
    this.#vectors = count;
    return this.counters();
  }

  /**
   * Ask the guest's kernel for one vector of the other kind beside the allocated ones. MSI and MSI-X exclude each
   * other: rejects with the kernel's refusal (EINVAL), and anything else is the kernel's fault.
   */
  async enableBeside(kind: Exclude<VectorKind, 'intx'>): Promise<void> {
    await this.#ask(`irq beside ${kind}`);
  }

  async disableVectors(): Promise<void> {
    await this.#ask('irq free');
  }

  /** The counts of all vectors, in their order. */
  async counters(): Promise<VectorCount[]> {
    const counts = parseCounts((await this.#ask('irq counts', this.#vectors > 64 ? 'many lines' : 'some lines')).lines);
    this.#vectors = counts.length;
    return counts;
  }

  async counter(vector: number): Promise<VectorCount> {
    const { lines } = await this.#ask(`irq counts ${vector} 1`, 'some lines');
    const [count] = parseCounts(lines);
    if (count === undefined) throw unexpected('irq counts', lines.join('\n'));
    return count;
  }

  /**
   * Wait in the guest until a vector has been handled at least this often since it was allocated.
   * Returns the count. @throws DeadlineError
   */
  async waitForCount(vector: number, atLeast: number, { timeoutMs = 5000 }: { readonly timeoutMs?: number } = {}): Promise<number> {
    const command = `irq wait ${vector} ${formatNumber(atLeast, 'count')} ${timeoutMs}`;
    try {
      const { stdout } = await this.#guest.run(askScript(this.bdf, command, 'one line'), { timeoutMs: timeoutMs + 10_000 });
      return Number(parseAnswer(this.bdf, command, stdout).value);
    } catch (error) {
      if (errnoNameOf(error) !== 'ETIMEDOUT') throw error;
      throw new DeadlineError(`the guest to handle vector ${vector} of ${this.bdf} ${atLeast} times`, timeoutMs, { cause: error });
    }
  }

  /**
   * Set the vector's mask bit in the hardware (MSI-X table entry, MSI mask register; for INTx the
   * Interrupt Disable bit); resolved only when it reads back. EOPNOTSUPP where MSI has no mask bits.
   */
  async maskVector(vector: number): Promise<void> {
    await this.#ask(`irq mask ${vector}`);
  }

  async unmaskVector(vector: number): Promise<void> {
    await this.#ask(`irq unmask ${vector}`);
  }

  /** The pending bits, bit k for vector k: the MSI-X PBA; with MSI or INTx enabled, theirs. */
  async pendingBits(): Promise<bigint> {
    return parsePending((await this.#ask('irq pending')).value);
  }

  /** The vectors whose pending bit is set, ascending. */
  async pendingVectors(): Promise<number[]> {
    const bits = (await this.pendingBits()).toString(2);
    return [...bits].reverse().flatMap((bit, vector) => (bit === '1' ? [vector] : []));
  }

  /** An entry of the MSI-X table as it stands in the BAR, allocated or not. */
  async tableEntry(vector: number): Promise<MsixEntry> {
    const { value } = await this.#ask(`irq entry ${vector}`);
    const words = value.split(' ').map(Number);
    const view = new DataView(encodeMsixEntry({ address: 0n, data: 0, masked: false }).buffer);
    if (words.length !== 4) throw unexpected('irq entry', value);
    words.forEach((word, i) => view.setUint32(4 * i, word, true));
    return decodeMsixEntry(new Uint8Array(view.buffer));
  }

  /** Deliver a vector to one CPU from now on. */
  async setAffinity(vector: number, cpu: number): Promise<void> {
    const { irq } = await this.counter(vector);
    await this.#guest.shell.run(`echo ${BigInt(formatNumber(cpu, 'cpu'))} >/proc/irq/${irq}/smp_affinity_list`);
  }

  /**
   * How the handler is to quiet the device; undefined takes the rule back. An INTx without a rule is
   * masked by its handler after each interrupt, until unmaskVector(0).
   */
  async setAcknowledge(rule: AcknowledgeRule | undefined): Promise<void> {
    if (rule === undefined) return void await this.#ask('irq ack none');
    const { bar, width, statusOffset, acknowledgeOffset } = rule;
    const acknowledge = acknowledgeOffset === undefined ? 'read' : formatNumber(acknowledgeOffset, 'acknowledgeOffset');
    await this.#ask(`irq ack ${width * 8} ${bar} ${formatNumber(statusOffset, 'statusOffset')} ${acknowledge}`);
  }

  /** Allocate the function's DMA buffer, zeroed, at most 64 KiB. `addressBits`: how wide an address the device can emit. */
  async allocateDma({ sizeBytes, addressBits = 64 }: { readonly sizeBytes: number; readonly addressBits?: number }): Promise<DmaBuffer> {
    const busAddress = await this.#bigint(`dma alloc ${formatNumber(sizeBytes, 'sizeBytes')} ${addressBits}`);
    return {
      busAddress,
      sizeBytes,
      read: async (offset, lengthBytes) =>
        Buffer.from((await this.#ask(`dma read ${formatNumber(offset, 'offset')} ${formatNumber(lengthBytes, 'lengthBytes')}`, 'many lines')).value, 'hex'),
      write: (offset, bytes) => this.#dmaWrite(offset, bytes, sizeBytes),
      free: async () => void await this.#ask('dma free'),
    };
  }

  async #dmaWrite(offset: number, bytes: Uint8Array, sizeBytes: number): Promise<void> {
    if (offset < 0 || offset + bytes.length > sizeBytes) {
      throw new UsageError(`${bytes.length} bytes at ${offset} do not fit into a DMA buffer of ${sizeBytes}`);
    }
    for (let done = 0; done < bytes.length; done += DMA_WRITE_BYTES) {
      const hex = Buffer.from(bytes.subarray(done, done + DMA_WRITE_BYTES)).toString('hex');
      await this.#ask(`dma write ${formatNumber(offset + done, 'offset')} ${hex}`);
    }
  }

  async #number(command: string): Promise<number> {
    return Number(await this.#bigint(command));
  }

  async #bigint(command: string): Promise<bigint> {
    const { value } = await this.#ask(command);
    if (!/^0x[0-9a-f]+$/.test(value)) throw unexpected(command, value);
    return BigInt(value);
  }

  async #ask(command: string, answer: AnswerLength = 'one line'): Promise<ProbeAnswer> {
    const { stdout } = await this.#guest.shell.run(askScript(this.bdf, command, answer));
    return parseAnswer(this.bdf, command, stdout);
  }
}
