// Jest's own runner, for a project whose files are run one at a time whatever the number of workers.
// Source: jest-runner's EmittingTestRunner, `isSerial`.
import { createRequire } from 'node:module';

const { default: TestRunner } = createRequire(import.meta.url)('jest-runner');

export default class SerialRunner extends TestRunner {
  isSerial = true;
}
