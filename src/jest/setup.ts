// setupFilesAfterEnv of the preset: the matchers, and how often a test that failed is tried again, in every test file.
import { expect, jest } from '@jest/globals';
import { matchers } from './matchers/index.ts';
import { chosenRetries } from './report-directory.ts';

expect.extend(matchers);

const retries = chosenRetries();
if (retries > 0) jest.retryTimes(retries, { logErrorsBeforeRetry: true });
