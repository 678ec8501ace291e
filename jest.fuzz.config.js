// The fuzz targets (`make fuzz`): random cases out of a seed for ROOTPORT_FUZZ_SECONDS each. What they found
// stands in test/fuzz/corpus and is run again by the unit tests.
import unit from './jest.unit.config.js';

export default { ...unit, testMatch: ['<rootDir>/test/fuzz/*.fuzz.ts'], testTimeout: 24 * 3600 * 1000, maxWorkers: 1, verbose: true };
