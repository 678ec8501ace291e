// What a project that uses Jest's globals has from @types/jest, in two lines.
declare const test: typeof import('@jest/globals').test;
declare const expect: typeof import('@jest/globals').expect;
