// The fuzz targets (`make fuzz`): random cases out of a seed for ROOTPORT_FUZZ_SECONDS each, one target by its name
// with -t. What they found goes to test/fuzz/found, or with ROOTPORT_FUZZ_KEEP=1 into test/fuzz/corpus, which the unit
// tests run again.
import unit from './jest.unit.config.js';

export default { ...unit, testMatch: ['<rootDir>/test/fuzz/*.fuzz.ts'], testTimeout: 24 * 3600 * 1000, maxWorkers: 1, verbose: true };
