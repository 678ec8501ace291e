// Advanced Error Reporting (PCIe Base 6.0, 6.2 and 7.8.4) from the device to the driver: each error that QEMU can
// inject, told by the device's registers, the guest's log, the counters in sysfs, and the callbacks of the driver's
// pci_error_handlers in their order (Linux Documentation/PCI/pci-error-recovery.rst; the probe records them). With
// native hot-plug: under ACPI's the reset of the link that a fatal error takes does not succeed.
import { describe, expect, test } from '@jest/globals';
import {
  ConfigImage, CORRECTABLE_ERRORS, decodeAer, q35NativeHotplug, qemuDevice, UNCORRECTABLE_ERRORS,
  type AerCapability, type AerError, type CorrectableError, type PciFunction, type UncorrectableError,
} from 'rootport';
import { useMachine } from 'rootport/jest';

const NON_FATAL: UncorrectableError[] = ['TLP', 'CmpltTO', 'CmpltAbrt', 'UnxCmplt', 'ECRC', 'UnsupReq', 'ACSViol', 'BlockedTLP', 'AtomicOpBlocked'];
/** Fatal by the Severity register's default (7.8.4.4). */
const FATAL: UncorrectableError[] = ['DLP', 'SDES', 'FCP', 'RxOF', 'MalfTLP'];
const CORRECTABLE: CorrectableError[] = ['RxErr', 'BadTLP', 'BadDLLP', 'Rollover', 'Timeout'];

const AER = 0x100; // where QEMU's virtio devices have it
const STATUS = 0x04, MASK = 0x08, SEVERITY = 0x0c;
const EVENTS = '/sys/kernel/debug/rootport_probe/events';

describe.each(['10.0', '7.2'])('QEMU %s', (qemu) => {
  let fn: PciFunction;
  let bridge: string;
  const vm = useMachine({
    qemu, machine: q35NativeHotplug({ ports: 2 }),
    afterBoot: async (machine) => {
      fn = await machine.plug(qemuDevice('virtio-rng-pci', { aer: true, vectors: 2 }));
      bridge = (await machine.guest.run(`dirname $(readlink -f ${fn.sysfs})`)).stdout.trim();
      // SERR# Enable, which 7.2 asks for; before the probe binds, which saves what it restores after a reset.
      await machine.guest.run(`printf '\\001' | dd of=${fn.sysfs}/config bs=1 seek=5 conv=notrunc 2>/dev/null`);
      await machine.probe(fn);
    },
  });

  const counter = async (directory: string, file: string, name: string): Promise<number> =>
    Number((await vm.guest.run(`sed -n 's/^${name} //p' ${directory}/${file}`)).stdout);
  const total = async (severity: 'cor' | 'fatal' | 'nonfatal'): Promise<number> => Number((await vm.guest.run(`cat ${bridge}/aer_rootport_total_err_${severity}`)).stdout);

  /** The device's AER registers as they are in the VMM while the guest stands still, right after the error. */
  async function injectStopped(error: AerError): Promise<AerCapability | undefined> {
    const [, base] = /([0-9a-f]+)-[0-9a-f]+ : PCI MMCONFIG/.exec((await vm.guest.run('cat /proc/iomem')).stdout) ?? [];
    const bus = parseInt(fn.bdf.slice(5, 7), 16);
    await vm.qmp.execute('stop');
    await vm.injectAer(fn, error);
    const said = await vm.qmp.hmp(`xp /11xw 0x${(parseInt(base ?? '', 16) + (bus << 20) + AER).toString(16)}`);
    await vm.qmp.execute('cont');
    const bytes = Buffer.alloc(AER + 0x2c);
    [...said.matchAll(/0x([0-9a-f]{8})/g)].forEach(([, word = ''], i) => bytes.writeUInt32LE(parseInt(word, 16), AER + 4 * i));
    return decodeAer(new ConfigImage(bytes), AER);
  }

  /** The driver's callbacks while `action` causes an error, up to resume(). */
  async function callbacksOf(action: () => Promise<void>): Promise<string[]> {
    const since = (await vm.probeEvents(fn)).at(-1)?.sequence ?? 0;
    const resumed = `grep -c ' resume ' ${EVENTS}`;
    const before = Number((await vm.guest.attempt(resumed)).stdout);
    await action();
    await vm.guest.until(`[ "$(${resumed})" -gt ${before} ] && dmesg | tail -n 2 | grep -q 'device recovery'`, 'the recovery from the error', 10_000);
    return (await vm.probeEvents(fn)).filter(({ sequence }) => sequence > since).map(({ kind, detail }) => `${kind} ${detail}`.trim());
  }

  /** Inject, wait until the driver was told to go on, and tell what every side saw of it. */
  async function recovery(error: UncorrectableError): Promise<{ registers: AerCapability | undefined; callbacks: string[]; log: string }> {
    const seen = (await vm.guest.dmesg()).length;
    let registers: AerCapability | undefined;
    const callbacks = await callbacksOf(async () => { registers = await injectStopped(error); });
    return { registers, callbacks, log: (await vm.guest.dmesg()).slice(seen) };
  }

  test('each non-fatal error is logged by name, counted, and recovered from without a reset', async () => {
    const before = await counter(fn.sysfs, 'aer_dev_nonfatal', 'TOTAL_ERR_NONFATAL');
    const fatal = await counter(fn.sysfs, 'aer_dev_fatal', 'TOTAL_ERR_FATAL');
    for (const error of NON_FATAL) {
      const once = await counter(fn.sysfs, 'aer_dev_nonfatal', error) + 1;
      const { registers, callbacks, log } = await recovery(error);
      expect([error, registers?.uncorrectable.status, registers?.firstErrorPointer]).toEqual([error, [error], UNCORRECTABLE_ERRORS[error]]);
      expect([error, ...callbacks]).toEqual([error, 'error_detected normal', 'mmio_enabled', 'resume']);
      expect(log).toMatch(/PCIe Bus Error: severity=Uncorrected \(Non-Fatal\)/);
      expect(log).toMatch(new RegExp(`\\[ ?${UNCORRECTABLE_ERRORS[error]}\\] ${error} +\\(First\\)`));
      expect(log).toContain('device recovery successful');
      expect([error, await counter(fn.sysfs, 'aer_dev_nonfatal', error)]).toEqual([error, once]);
    }
    expect(await counter(fn.sysfs, 'aer_dev_nonfatal', 'TOTAL_ERR_NONFATAL')).toBe(before + NON_FATAL.length);
    expect(await counter(fn.sysfs, 'aer_dev_fatal', 'TOTAL_ERR_FATAL')).toBe(fatal);
    expect(decodeAer(new ConfigImage(await fn.configSpace()), AER)?.uncorrectable.status).toEqual([]); // the guest cleared them
  });

  test('each fatal error stops the device, resets its link, and gives it back to its driver as it was', async () => {
    const probe = await vm.probe(fn);
    /** Less Status, in which the error itself stands. */
    const header = async (): Promise<string> => (await fn.configSpace()).fill(0, 6, 8).subarray(0, 0x40).toString('hex');
    const saved = await header();
    const before = await total('fatal');
    for (const error of FATAL) {
      const { registers, callbacks, log } = await recovery(error);
      expect([error, registers?.uncorrectable.status]).toEqual([error, [error]]);
      expect(registers?.uncorrectable.severity).toContain(error);
      expect([error, ...callbacks]).toEqual([error, 'error_detected frozen', 'slot_reset', 'resume']);
      expect(log).toMatch(new RegExp(`AER: Uncorrected \\(Fatal\\) error message received from ${fn.bdf}`));
      expect(log).toContain('Root Port link has been reset');
      expect(log).toContain('device recovery successful');
      expect(await header()).toBe(saved);
      expect(await probe.memRead(4, 0x12, 2)).toBe(1n); // num_queues: virtio's registers answer again
    }
    expect(await total('fatal')).toBe(before + FATAL.length);
  });

  test('Severity decides: Receiver Overflow made non-fatal, and Unexpected Completion made fatal', async () => {
    const probe = await vm.probe(fn);
    const severity = await probe.configRead(AER + SEVERITY, 4);
    const bits = (...errors: UncorrectableError[]): number => errors.reduce((mask, error) => mask | 1 << UNCORRECTABLE_ERRORS[error], 0) >>> 0;
    const overflows = await counter(fn.sysfs, 'aer_dev_nonfatal', 'RxOF');
    await probe.configWrite(AER + SEVERITY, 4, (severity & ~bits('RxOF') | bits('UnxCmplt')) >>> 0);
    const overflow = await recovery('RxOF');
    expect(overflow.callbacks).toEqual(['error_detected normal', 'mmio_enabled', 'resume']);
    expect(overflow.log).toMatch(/severity=Uncorrected \(Non-Fatal\).*\(Receiver ID\)/);
    expect(overflow.log).toMatch(/\[17\] RxOF +\(First\)/);
    expect(await counter(fn.sysfs, 'aer_dev_nonfatal', 'RxOF')).toBe(overflows + 1);
    const completion = await recovery('UnxCmplt');
    expect(completion.registers?.uncorrectable.status).toEqual(['UnxCmplt']);
    expect(completion.callbacks).toEqual(['error_detected frozen', 'slot_reset', 'resume']);
    await probe.configWrite(AER + SEVERITY, 4, severity);
  });

  test(`correctable errors ${qemu === '7.2' ? 'set their bit, and this QEMU tells the guest of none' : 'are logged by name and counted, and no driver is asked'}`, async () => {
    const since = (await vm.probeEvents(fn)).length;
    const seen = (await vm.guest.dmesg()).length;
    const before = await counter(fn.sysfs, 'aer_dev_correctable', 'TOTAL_ERR_COR');
    for (const error of CORRECTABLE) {
      const registers = await injectStopped(error);
      expect(registers?.correctable.status).toContain(error);
      if (qemu === '7.2') continue;
      await vm.guest.until(`[ "$(sed -n 's/^${error} //p' ${fn.sysfs}/aer_dev_correctable)" -gt 0 ]`, `the count of ${error}`, 10_000);
      expect((await vm.guest.dmesg()).slice(seen)).toMatch(new RegExp(`severity=Corrected[^]*\\[ ?${CORRECTABLE_ERRORS[error]}\\] ${error}\\b`));
    }
    // What comes after them has come: so have they.
    await recovery('UnxCmplt');
    expect(await counter(fn.sysfs, 'aer_dev_correctable', 'TOTAL_ERR_COR')).toBe(before + (qemu === '7.2' ? 0 : CORRECTABLE.length));
    expect((await vm.probeEvents(fn)).slice(since).map(({ kind }) => kind)).toEqual(['error_detected', 'mmio_enabled', 'resume']);
  });

  test(qemu === '7.2' ? 'the Mask register of this QEMU takes no bit' : 'a masked error sets its bit, and nobody is told', async () => {
    const probe = await vm.probe(fn);
    const mask = await probe.configRead(AER + MASK, 4);
    await probe.configWrite(AER + MASK, 4, mask | 1 << UNCORRECTABLE_ERRORS.CmpltTO);
    if (qemu === '7.2') {
      expect([mask, await probe.configRead(AER + MASK, 4)]).toEqual([0, 0]);
      return;
    }
    const before = await counter(fn.sysfs, 'aer_dev_nonfatal', 'CmpltTO');
    expect((await injectStopped('CmpltTO'))?.uncorrectable.status).toEqual(['CmpltTO']);
    await probe.configWrite(AER + STATUS, 4, 1 << UNCORRECTABLE_ERRORS.CmpltTO);
    // What comes after it has come: so had its message.
    expect((await recovery('UnxCmplt')).callbacks).toEqual(['error_detected normal', 'mmio_enabled', 'resume']);
    expect(await counter(fn.sysfs, 'aer_dev_nonfatal', 'CmpltTO')).toBe(before);
    await probe.configWrite(AER + MASK, 4, mask);
  });

  test('an error of the port is told to the driver behind it', async () => {
    const before = [await total('nonfatal'), await counter(bridge, 'aer_dev_nonfatal', 'UnxCmplt')];
    expect(await callbacksOf(() => vm.injectAer(fn.port, 'UnxCmplt'))).toEqual(['error_detected normal', 'mmio_enabled', 'resume']);
    expect([await total('nonfatal'), await counter(bridge, 'aer_dev_nonfatal', 'UnxCmplt')]).toEqual(before.map((count) => count + 1));
  });

  test('a name that is none, and a device without AER, are UsageErrors', async () => {
    await expect(vm.injectAer(fn, 'RX_OVER' as AerError)).rejects.toThrow('there is no PCI Express error named "RX_OVER"\n  hint: they are DLP, SDES, ');
    await expect(vm.injectAer('rootport-nic', 'UnxCmplt')).rejects.toThrow('QEMU injects no UnxCmplt into rootport-nic: ');
  });
});
