// The driver suites of this package, by the same preset that users take.
export default {
  preset: './jest-preset.cjs',
  roots: ['<rootDir>/suites'],
};
