// Placeholder until the edu suite comes: boots, plugs, reads an id through config space.
import { expect, test } from '@jest/globals';
import { edu } from 'rootport';
import { useMachine } from 'rootport/jest';

const vm = useMachine();

test('edu that is plugged into a running guest shows its vendor and device id', async () => {
  const fn = await vm.plug(edu());
  const config = await fn.configSpace();
  expect(config.readUInt32LE(0)).toBe(0x11e81234);
});
