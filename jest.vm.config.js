// The tests that need QEMU or the network (*.vm.test.ts): minutes. Two files at a time: a guest under TCG keeps
// a CPU busy.
import unit from './jest.unit.config.js';

export default {
  ...unit,
  testMatch: ['<rootDir>/test/**/*.vm.test.ts'],
  testPathIgnorePatterns: ['/node_modules/'],
  testTimeout: 300_000,
  maxWorkers: 2,
};
