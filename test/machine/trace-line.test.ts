// Lines of QEMU's trace as 7.2, 10.0 and 11.1 wrote them to stderr.
import { expect, test } from '@jest/globals';
import { parseTraceLine } from '../../src/machine/trace-line.ts';

const MESSAGE = { destination: 1, destinationMode: 1, vector: 39 };
const CONFIG_WRITE = { slot: '01:00.0', offset: 0x42, value: 0xc003 };

test.each([
  ['7.2 and 10.0', '31704@1795324362.162243:apic_deliver_irq dest 1 dest_mode 1 delivery_mode 0 vector 39 trigger_mode 0', { seconds: 1795324362.162243, message: MESSAGE }],
  ['11.1', '2026-11-22T05:12:42.162243Z apic_deliver_irq dest 1 dest_mode 1 delivery_mode 0 vector 39 trigger_mode 0', { seconds: Date.UTC(2026, 10, 22, 5, 12, 42) / 1000 + 0.162243, message: MESSAGE }],
  ['a QEMU without timestamps', 'apic_deliver_irq dest 1 dest_mode 1 delivery_mode 0 vector 39 trigger_mode 0', { seconds: undefined, message: MESSAGE }],
  ['10.0', '31704@1795324362.000001:pci_cfg_write pci-device 01:00.0 @0x42 <- 0xc003', { seconds: 1795324362.000001, configWrite: CONFIG_WRITE }],
  ['11.1', '2026-11-22T05:12:42.000001Z pci_cfg_write vfio-user-pci 01:00.0 @0x42 <- 0xc003', { seconds: Date.UTC(2026, 10, 22, 5, 12, 42) / 1000 + 0.000001, configWrite: CONFIG_WRITE }],
])('%s: %s', (_, line, event) => {
  expect(parseTraceLine(line)).toEqual(event);
});

test.each(['2026-11-22T05:12:42.162243Z qemu-system-x86_64: warning: apic_deliver_irq dest 1', '31704@1795324362.1:pci_cfg_read edu 01:00.0 @0x0 -> 0x1', ''])('no event of ours: %s', (line) => {
  expect(parseTraceLine(line)).toBeUndefined();
});
