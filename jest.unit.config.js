// The unit tests: no QEMU, no network, seconds. `make check` runs these. *.vm.test.ts are jest.vm.config.js'.
export default {
  testEnvironment: 'node',
  testMatch: ['<rootDir>/test/**/*.test.ts'],
  // Tests have no times of their own to keep: this only ends one that hangs. Those that start children have taken six
  // times their usual second on a host that runs twenty programs, and a test cut off goes on under the next one.
  testTimeout: 60_000,
  testPathIgnorePatterns: ['/node_modules/', '\\.vm\\.test\\.ts$'],
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '^.+\\.ts$': ['@swc/jest', { jsc: { target: 'es2022', parser: { syntax: 'typescript' } }, module: { type: 'es6' }, sourceMaps: 'inline' }],
  },
};
