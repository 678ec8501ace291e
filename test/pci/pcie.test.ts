import { describe, expect, test } from '@jest/globals';
import { configOf } from '../../src/pci/config-space.ts';
import { SLOT_CONTROL, SLOT_STATUS, readPcieCapability } from '../../src/pci/pcie.ts';
import { dumpNames, lspci } from './lspci.ts';

describe('readPcieCapability', () => {
  test('a root port has its type, link and slot as lspci says', async () => {
    const { config } = lspci('qemu10.0-root-port');
    expect(await readPcieCapability(configOf(config))).toMatchObject({
      offset: 0x54, version: 2, deviceType: 'root-port', maxPayloadBytes: 128, linkSpeed: 4, linkWidth: 32, linkActive: false,
      slot: { attentionButton: true, powerController: true, attentionIndicator: true, powerIndicator: true, surprise: true, hotPlug: true, number: 2, present: false },
    });
    const slot = (await readPcieCapability(configOf(config)))?.slot;
    expect((slot?.control ?? 0) & SLOT_CONTROL.POWER_OFF).toBe(0);
    expect((slot?.control ?? 0) & SLOT_CONTROL.HOT_PLUG_INTERRUPT_ENABLE).toBe(0);
    expect((slot?.control ?? 0) & SLOT_CONTROL.POWER_INDICATOR).toBe(0x300);
  });

  test('a card in the slot and the changes told are read off Slot Status', async () => {
    const config = lspci('qemu10.0-root-port').config.slice();
    config[0x54 + 0x1a] = SLOT_STATUS.PRESENCE_DETECT_STATE | SLOT_STATUS.PRESENCE_DETECT_CHANGED;
    expect((await readPcieCapability(configOf(config)))?.slot).toMatchObject({ present: true, status: 0x48 });
  });

  test('an endpoint has no slot, and function-level reset as lspci says', async () => {
    const { config, text } = lspci('qemu10.0-virtio-modern');
    expect(text).toContain('FLReset+');
    expect(await readPcieCapability(configOf(config))).toMatchObject({ offset: 0x40, deviceType: 'endpoint', functionLevelReset: true, linkSpeed: 1, linkWidth: 1, slot: undefined });
  });

  test.each(dumpNames)('%s: there exactly when lspci says Express', async (name) => {
    const { config, text } = lspci(name);
    expect((await readPcieCapability(configOf(config))) !== undefined).toBe(text.includes('Express (v'));
  });
});
