// Which project's suites are run: real directories with real Jest configurations.
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { UsageError } from '../../src/errors.ts';
import { findProject } from '../../src/cli/suite-project.ts';
import { PACKAGE, temporary } from './rootport.ts';

let root: string;
beforeEach(() => { root = temporary('project'); });
afterEach(() => rmSync(root, { recursive: true }));

function project(files: Record<string, string>): void {
  for (const [path, text] of Object.entries({ 'package.json': '{}', ...files })) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
}

test.each([
  ['package.json', { 'package.json': '{ "jest": { "preset": "rootport" } }' }],
  ['jest.config.json', { 'jest.config.json': '{ "preset": "rootport" }' }],
  ['jest.config.mjs', { 'jest.config.mjs': 'export default { preset: "rootport" }' }],
  ['jest.config.js that is ESM', { 'package.json': '{ "type": "module" }', 'jest.config.js': 'export default { preset: "rootport" }' }],
  ['jest.config.cjs that is a function', { 'jest.config.cjs': 'module.exports = async () => ({ preset: "rootport" })' }],
  ['one of several projects', { 'jest.config.json': '{ "projects": [{ "displayName": "unit" }, { "preset": "rootport" }] }' }],
  ['a path to the preset', { 'jest.config.json': JSON.stringify({ preset: resolve(PACKAGE, 'jest-preset.cjs') }) }],
] as [string, Record<string, string>][])('a project that takes the preset in %s is run with its own configuration', async (_where, files) => {
  project(files);
  expect(await findProject(root)).toMatchObject({ root, configArgs: [], isOwnPackage: false });
});

test('the project around a folder is found from within', async () => {
  project({ 'package.json': '{ "jest": { "preset": "rootport" } }', 'suites/deep/x.suite.js': '' });
  expect(await findProject(join(root, 'suites/deep'))).toMatchObject({ root });
});

test('the project\'s own Jest is taken where it has one', async () => {
  project({ 'package.json': '{ "jest": { "preset": "rootport" } }' });
  mkdirSync(join(root, 'node_modules'));
  symlinkSync(join(PACKAGE, 'node_modules/jest'), join(root, 'node_modules/jest'));
  expect((await findProject(root)).jest).toBe(join(PACKAGE, 'node_modules/jest/bin/jest.js'));
});

test.each([
  ['no Jest configuration', {}],
  ['another preset', { 'package.json': '{ "jest": { "preset": "ts-jest" } }' }],
  ['a configuration without a preset', { 'jest.config.mjs': 'export default {}' }],
] as [string, Record<string, string>][])('a project with %s leaves the package\'s own suites', async (_what, files) => {
  project(files);
  expect(await findProject(root)).toMatchObject({ root: resolve(PACKAGE), configArgs: ['--config', join(PACKAGE, 'jest.config.js')], isOwnPackage: true });
});

test('a configuration that cannot be read is a UsageError that says why', async () => {
  project({ 'jest.config.mjs': 'throw new Error("I am broken")' });
  await expect(findProject(root)).rejects.toThrow(UsageError);
  await expect(findProject(root)).rejects.toThrow(/the Jest configuration of .* cannot be read: [^]*I am broken/);
});
