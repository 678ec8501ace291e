// The workflow, roughly: it is read line by line, as no YAML library is here. What it names must be there.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { expect, test } from '@jest/globals';
import { environmentNames, makeTargets, manifest } from './names.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const workflow = await readFile(join(ROOT, '.github/workflows/ci.yml'), 'utf8');

/** The lines of each job, by name: what is indented by two under `jobs:`. */
function jobs(text: string): Map<string, string> {
  const [, body = ''] = text.split(/^jobs:\n/m);
  const parts = body.split(/^ {2}([a-z-]+):\n/m).slice(1);
  return new Map(parts.flatMap((part, i) => (i % 2 === 0 ? [[part, parts[i + 1] ?? '']] : [])));
}

test('both jobs run make test on Debian 12 with the Node of package.json', async () => {
  const found = jobs(workflow);
  expect([...found.keys()]).toEqual(['kvm', 'tcg']);
  const { engines } = await manifest();
  for (const job of found.values()) {
    expect(job).toMatch(/^ *(- run: )?make test$/m);
    expect(/node:(\d+)-bookworm/.exec(job)?.[1]).toBe(/\d+/.exec(engines.node)?.[0]);
  }
});

test('it names no make target that the Makefile does not have', async () => {
  const targets = await makeTargets();
  const named = [...workflow.matchAll(/\bmake ([a-z-]+)/g)].map(([, target = '']) => target);
  expect(named).toContain('test');
  expect(named.filter((target) => !targets.includes(target))).toEqual([]);
});

test('the one job has /dev/kvm, which anybody may open, and asks for KVM; the other asks for TCG', () => {
  const { kvm = '', tcg = '' } = Object.fromEntries(jobs(workflow));
  expect(kvm).toMatch(/KERNEL=="kvm", GROUP="kvm", MODE="0666"/);
  expect(kvm).toMatch(/docker run .*--device \/dev\/kvm/);
  expect(kvm).toMatch(/ROOTPORT_ACCEL=kvm/);
  expect(tcg).toMatch(/^ {6}ROOTPORT_ACCEL: tcg$/m);
  expect(tcg).not.toMatch(/kvm/i);
});

test('each job keeps the cache under the list of trees, and hands over its results whatever happened', () => {
  const cache = /^ {2}ROOTPORT_CACHE: (\S+)$/m.exec(workflow)?.[1];
  for (const job of jobs(workflow).values()) {
    expect(/uses: actions\/cache@v4\n {8}with:\n {10}path: (\S+)\n {10}key: .*hashFiles\('(\S+)'\)/.exec(job)?.slice(1)).toEqual([cache, 'images/trees.json']);
    expect(job).toMatch(/upload-artifact@v4\n {8}if: always\(\)\n[^]*path: rootport-results\//);
  }
  expect(existsSync(join(ROOT, 'images/trees.json'))).toBe(true);
});

test('every environment variable of rootport that it sets is one that src/ reads', async () => {
  const named = [...workflow.matchAll(/\bROOTPORT_[A-Z_]+/g)].map(([name]) => name);
  expect([...new Set(named)].filter((name) => !environmentNames().has(name))).toEqual([]);
});

test('it is indented by spaces, two at a time, and closes its brackets', () => {
  for (const line of workflow.split('\n')) {
    expect(line).toMatch(/^(?: {2})*(?! )[^\t]*$/);
    expect(line.split('${{').length).toBe(line.split('}}').length);
  }
});
