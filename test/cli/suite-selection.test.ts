import { expect, test } from '@jest/globals';
import { UsageError } from '../../src/errors.ts';
import { selectSuites, suiteName } from '../../src/cli/suite-selection.ts';

const root = '/p';
const files = ['/p/suites/disk/read.suite.ts', '/p/suites/disk/write.suite.ts', '/p/suites/edu/edu.suite.ts', '/p/suites/top.suite.mjs', '/p/test/nic/edu-like.test.js'];
const select = (...names: string[]): string[] => selectSuites(names, files, { root, cwd: '/p/suites' });

test.each([
  ['/p/suites/edu/edu.suite.ts', 'edu'], ['/p/suites/disk/read.suite.ts', 'disk/read'], ['/p/suites/top.suite.mjs', 'top'],
  ['/p/test/nic/edu-like.test.js', 'test/nic/edu-like'], ['/p/a.suite.ts', 'a'],
])('%s is called %s', (file, name) => {
  expect(suiteName(file, root)).toBe(name);
});

test('no name means every suite', () => {
  expect(select()).toEqual(files);
});

test.each([
  ['a folder\'s name', 'disk', [0, 1]], ['a suite\'s full name', 'disk/write', [1]], ['a file\'s stem', 'write', [1]],
  ['a file name\'s part', 'top', [3]], ['a path from the working directory', 'edu/edu.suite.ts', [2]], ['a folder\'s path', './disk', [0, 1]],
  ['a folder\'s path with a slash', 'disk/', [0, 1]], ['an absolute path', '/p/test', [4]], ['the whole project', '..', [0, 1, 2, 3, 4]],
])('%s (%s) means its suites', (_what, name, indexes) => {
  expect(select(name)).toEqual(indexes.map((index) => files[index]));
});

test('names that overlap mean each suite once, in the order of the files', () => {
  expect(select('edu', 'write', 'disk')).toEqual(files.slice(0, 3));
});

test('one unknown name among known ones is a UsageError that lists the known', () => {
  expect(() => select('edu', 'ed')).toThrow(UsageError);
  expect(() => select('edu', 'ed')).toThrow('hint: the suites of /p are disk/read, disk/write, edu, top, test/nic/edu-like');
});

test('a project without suites is a UsageError', () => {
  expect(() => selectSuites([], [], { root, cwd: root })).toThrow(/Jest finds no suite in \/p/);
});
