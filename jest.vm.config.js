// The tests that need QEMU or the network (*.vm.test.ts): minutes. Two files at a time on two CPUs: one file's guests and
// child Jests keep one CPU busy, and wait often. Then, one at a time, those with a bound to keep (nothing left two seconds
// after a kill -9) that says nothing on a host with several guests a core.
import { availableParallelism } from 'node:os';
import unit from './jest.unit.config.js';

const BOUNDED = ['machine/leash', 'machine/trouble', 'jest/use-machine'].map((name) => `/test/${name}\\.vm\\.test\\.ts$`);
const vm = { ...unit, testTimeout: 300_000 };

export default {
  maxWorkers: Math.max(1, Math.min(4, availableParallelism())),
  testTimeout: 300_000,
  projects: [
    { ...vm, displayName: 'vm', testMatch: ['<rootDir>/test/**/*.vm.test.ts'], testPathIgnorePatterns: ['/node_modules/', ...BOUNDED] },
    { ...vm, displayName: 'alone', testRegex: BOUNDED, testMatch: undefined, testPathIgnorePatterns: ['/node_modules/'], runner: '<rootDir>/test/serial-runner.mjs' },
  ],
};
