// Must fail: a back end that accepts QEMU's connection and never answers it. QEMU's main loop waits for the
// answer, so that neither its monitor nor the guest's network says anything more.
import { expect, test } from '@jest/globals';
import { virtioBlk, type VirtioBlkOptions } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine();

async function plug(options: Pick<VirtioBlkOptions, 'hang'>): Promise<void> {
  const fn = await vm.plug(virtioBlk({ capacityBytes: 2 ** 20, ...options }), { timeoutMs: 6000 });
  expect(await fn.driver()).toBe('virtio-pci');
}

test('control: a disk whose back end answers is plugged', () => plug({}));

test('must fail: a disk whose back end hangs is plugged', () => plug({ hang: 'connection' }));

test('control: the next test has a machine that works', () => plug({}));
