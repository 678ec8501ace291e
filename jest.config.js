// The driver suites of this package, by the same preset that users take. They run from a checkout, and from
// where npm put the package: under node_modules, which Jest leaves out of everything unless told.
export default {
  preset: './jest-preset.cjs',
  roots: ['<rootDir>/suites'],
  haste: { retainAllFiles: true },
  testPathIgnorePatterns: ['<rootDir>/node_modules/'],
  transformIgnorePatterns: ['<rootDir>/node_modules/'],
};
