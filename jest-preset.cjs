/* eslint-disable @typescript-eslint/no-require-imports -- Jest loads a preset by require */
// `preset: 'rootport'`: everything that a project's Jest needs to run suites of rootport. Paths are
// absolute, so that it works wherever npm put the package and what it stands on.
const { availableParallelism, freemem } = require('node:os');
const { join } = require('node:path');

/** A worker with its machine: 256 MiB of guest, QEMU's own 150, Node's 250, and as much again for a test with two. */
const WORKER_BYTES = 1024 * 2 ** 20;
/** A machine under TCG keeps one CPU busy, and its test hardly any; what is free counts too, a container's limit as well. */
const workers = () => {
  const memoryBytes = Math.min(freemem(), process.constrainedMemory?.() || Infinity);
  return Math.max(1, Math.min(8, availableParallelism(), Math.floor(memoryBytes / WORKER_BYTES)));
};

const dist = (file) => join(__dirname, 'dist/jest', file);

module.exports = {
  testMatch: ['**/*.suite.[jt]s', '**/*.suite.m[jt]s'],
  runner: dist('runner.js'),
  testEnvironment: dist('environment.js'),
  globalSetup: dist('global-setup.js'),
  setupFilesAfterEnv: [dist('setup.js')],
  reporters: ['default', dist('reporter.js')],
  extensionsToTreatAsEsm: ['.ts', '.mts'],
  moduleFileExtensions: ['js', 'mjs', 'cjs', 'ts', 'mts', 'json', 'node'],
  // TypeScript only: JavaScript runs as it is, as an ES module where its package.json says "type": "module".
  transform: {
    '\\.m?ts$': [require.resolve('@swc/jest'), {
      jsc: { target: 'es2022', parser: { syntax: 'typescript', decorators: true } },
      module: { type: 'es6' },
      sourceMaps: 'inline',
    }],
  },
  // TypeScript's own way to import ./x.ts is './x.js'.
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': ['$1.js', '$1.ts'] },
  // A wait inside a machine has its own deadline that says what it waited for; this is above all of them.
  testTimeout: 120_000,
  maxWorkers: workers(),
};
