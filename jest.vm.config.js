// The tests that need QEMU or the network (*.vm.test.ts): minutes. One file at a time: many of them
// start child Jests with workers and guests of their own, and some have a bound to keep (nothing left two
// seconds after a kill -9) that says nothing on a host with three guests a core.
import unit from './jest.unit.config.js';

export default {
  ...unit,
  testMatch: ['<rootDir>/test/**/*.vm.test.ts'],
  testPathIgnorePatterns: ['/node_modules/'],
  testTimeout: 300_000,
  maxWorkers: 1,
};
