// Ports by name, the first free one, and places on buses of the user's own.
import { describe, expect, test } from '@jest/globals';
import { UsageError } from '../../src/errors.ts';
import { freePort } from '../../src/machine/ports.ts';
import { findPreset } from '../../src/qemu/preset.ts';

const q35 = { preset: findPreset('q35'), ports: ['rp1', 'rp2'] };
const pc = { preset: findPreset('pc'), ports: ['slot1', 'slot2'] };

describe('freePort', () => {
  test('gives the first free port, and where a device in it is put', () => {
    expect(freePort(q35, [{ port: 'rp1' }], undefined)).toEqual({ port: 'rp2', place: { bus: 'rp2' } });
    expect(freePort(pc, [], undefined)).toEqual({ port: 'slot1', place: { bus: 'pci.0', addr: '0x8' } });
  });

  test('refuses a port that is taken, unknown, or not there any more', () => {
    expect(() => freePort(q35, [{ port: 'rp1' }], 'rp1')).toThrow('the port rp1 is taken\n  hint: free: rp2');
    expect(() => freePort(q35, [], 'rp3')).toThrow(UsageError);
    expect(() => freePort(q35, [{ port: 'rp1' }, { port: 'rp2' }], undefined)).toThrow('all 2 ports are taken');
  });

  test('takes a place on another bus by bus and slot, once', () => {
    expect(freePort(pc, [], { bus: 'br', addr: '0x3' })).toEqual({ port: 'br:0x3', place: { bus: 'br', addr: '0x3' } });
    expect(freePort(q35, [], { bus: 'down' }).port).toBe('down');
    expect(() => freePort(pc, [{ port: 'br:0x3' }], { bus: 'br', addr: '0x3' })).toThrow('the place br:0x3 is taken');
    expect(freePort(pc, [{ port: 'br:0x3' }], { bus: 'br', addr: '0x4' }).port).toBe('br:0x4');
  });
});
