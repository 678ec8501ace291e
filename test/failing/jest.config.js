// Suites that must fail, by the preset that users take. failing.vm.test.ts runs each in a Jest of its own
// and says what it must fail with; nothing else runs them.
export default {
  preset: '../../jest-preset.cjs',
  roots: ['<rootDir>/suites'],
};
