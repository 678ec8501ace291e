// The record of a kept machine: what is refused, what is said of the one that comes back.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { ProtocolError, UsageError } from '../../src/errors.ts';
import { checkScene, hostCpu, lacksOf, machineOf, parseScene, programOf, rootportVersion, SCENE_FORMAT, type SceneRecord } from '../../src/machine/scene-record.ts';
import { findPreset } from '../../src/qemu/preset.ts';

let place: string;
beforeEach(() => {
  place = mkdtempSync(join(tmpdir(), 'scene-record-'));
  writeFileSync(join(place, 'qemu'), 'ELF');
});
afterEach(() => rmSync(place, { recursive: true }));

const version = { major: 10, minor: 0, text: '10.0.2' };
const qemu = (): { name: string; version: typeof version; command: string[] } => ({ name: 'QEMU 10.0.2', version, command: [join(place, 'qemu'), '-L', '/roms'] });
const backEnd = { deviceId: 2, features: '0x200', ringFeatures: '0x30000000', queueCount: 1, queueSizeMax: 128, config: '00' };

function record(changes: Partial<SceneRecord> = {}): SceneRecord {
  const shape: SceneRecord['shape'] = {
    version, preset: findPreset('q35'), ports: 4, accel: 'tcg', cpus: 1, tcgThread: 'multi', memoryMiB: 256, devices: [], network: true, extraArgs: [],
  };
  return {
    format: SCENE_FORMAT, rootport: rootportVersion(), description: 'q35', qemu: { choice: '10.0', name: 'QEMU 10.0.2', program: programOf(qemu()) },
    machine: machineOf(shape), cpu: hostCpu(), shape, devices: [], stateless: [], ...changes,
  };
}

test('a record is what was written, and the same QEMU elsewhere may have it', () => {
  expect(parseScene(JSON.stringify(record()))).toEqual(record());
  const elsewhere = mkdtempSync(join(place, 'cache-'));
  writeFileSync(join(elsewhere, 'qemu'), 'ELF');
  expect(() => checkScene(record(), { ...qemu(), command: [join(elsewhere, 'qemu'), '-L', '/others'] })).not.toThrow();
});

describe('it is refused', () => {
  test.each([
    ['by a QEMU of another version', { name: 'QEMU 7.2', version: { ...version, text: '7.2' } }, /kept with QEMU 10\.0\.2, and this is QEMU 7\.2/],
    ['by another build of the same version', { command: ['/bin/sh'] }, /kept with QEMU 10\.0\.2, and this is another build of it/],
  ])('%s', (_, other, message) => {
    expect(() => checkScene(record(), { ...qemu(), ...other })).toThrow(UsageError);
    expect(() => checkScene(record(), { ...qemu(), ...other })).toThrow(message);
  });

  test('where rootport makes another machine of it', () => {
    expect(() => checkScene(record({ rootport: '0.0.9', machine: ['-M', 'q35'] }), qemu())).toThrow(/kept with rootport 0\.0\.9, and rootport \d.* makes another of it/);
  });

  test('by another CPU under KVM, not under TCG, where the clock may be wrong', () => {
    const kvm = record();
    const shape = { ...kvm.shape, accel: 'kvm' } as const;
    expect(() => checkScene({ ...kvm, shape, machine: machineOf(shape), cpu: 'another' }, qemu())).toThrow(/kept under KVM on another, and this host has/);
    expect(() => checkScene({ ...kvm, shape, machine: machineOf(shape) }, qemu())).not.toThrow();
    expect(() => checkScene(record({ cpu: 'another' }), qemu())).not.toThrow();
    expect(lacksOf(record({ cpu: 'another' }))).toEqual([expect.stringContaining('clock')]);
  });

  test.each([
    ['{', 'is not JSON'], ['null', 'format none'], ['{"format": 99}', 'format 99'], [`{"format": ${SCENE_FORMAT}, "rootport": "1", "description": "", "cpu": "", "machine": [], "stateless": [], "qemu": {}, "devices": {}, "shape": null}`, 'no good devices, shape'],
  ])('as a ProtocolError when it is %s', (text, message) => {
    expect(() => parseScene(text)).toThrow(ProtocolError);
    expect(() => parseScene(text)).toThrow(message);
  });
});

test('what is not true of it is said of each device by its place, and first what it was kept after', () => {
  const shape = { driver: 'd', properties: {}, chardevs: [] };
  expect(lacksOf(record({
    trouble: 'the guest kernel reported: Oops', stateless: ['dev1', '0000:00:1f.2 8086:2922'],
    devices: [{ ...shape, id: 'dev0', kind: 'virtio-blk', port: 'rp1', backEnd }, { ...shape, id: 'dev1', kind: 'edu', port: 'rp2' }],
  }))).toEqual([
    'it was kept after: the guest kernel reported: Oops',
    expect.stringMatching(/^dev1 \(edu in rp2\): QEMU does not save its state/),
    expect.stringMatching(/^0000:00:1f\.2 8086:2922: QEMU does not save its state/),
    'the back end of dev0 (virtio-blk in rp1) is not here: its requests will hang',
  ]);
});
