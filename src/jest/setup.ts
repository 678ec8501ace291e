// setupFilesAfterEnv of the preset: the matchers, in every test file.
import { expect } from '@jest/globals';
import { matchers } from './matchers/index.ts';

expect.extend(matchers);
