// The test runner of the preset: Jest's own, but always in worker processes that can load ES modules.
// rootport and what it stands on are ESM, which Jest loads only under --experimental-vm-modules; a plain
// `npx jest` has no such flag, and a worker's flags come from NODE_OPTIONS at its start. A Jest that has
// the flag already runs in band when it likes to.
// Source: Jest docs, "ECMAScript Modules"; jest-runner's EmittingTestRunner.
import { createRequire } from 'node:module';
import type * as JestRunner from 'jest-runner';

type Test = JestRunner.Test;
type TestWatcher = JestRunner.TestWatcher;
type TestRunnerOptions = JestRunner.TestRunnerOptions;
// By require: jest-runner's types are of its CommonJS form, whose default export is a property.
const { default: TestRunner } = createRequire(import.meta.url)('jest-runner') as (typeof JestRunner)['default'];

const FLAG = '--experimental-vm-modules';
const QUIET = '--disable-warning=ExperimentalWarning';

export default class RootportRunner extends TestRunner {
  override runTests(tests: Test[], watcher: TestWatcher, options: TestRunnerOptions): Promise<void> {
    if (process.execArgv.includes(FLAG) || (process.env['NODE_OPTIONS'] ?? '').split(/\s+/).includes(FLAG)) {
      return super.runTests(tests, watcher, options);
    }
    process.env['NODE_OPTIONS'] = [process.env['NODE_OPTIONS'] ?? '', FLAG, QUIET].join(' ').trim();
    return super.runTests(tests, watcher, { ...options, serial: false });
  }
}
