// The report in the formats of others: what they say of each outcome, and that no text breaks them.
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parseKtap } from '../../src/guest/ktap.ts';
import { renderAnnotations, renderStepSummary } from '../../src/report/github.ts';
import { renderJunit } from '../../src/report/junit.ts';
import { renderKtap } from '../../src/report/ktap-text.ts';
import { inertJson } from '../../src/report/page.ts';
import { plainText } from '../../src/report/plain-text.ts';
import { attempt, failedAttempt, report, testOf } from './sample-report.ts';

const errored = attempt({ outcome: 'errored', failures: [{ name: 'BootError', summary: 'no <kernel>', text: 'BootError: no <kernel>\n    at x (suites/a/a.suite.ts:12:3)' }], folder: 'failures/b' });
const all = report([
  testOf('passes'), testOf('fails & falls', { status: 'failed', attempts: [failedAttempt('it is "another"')] }),
  testOf('errs', { status: 'errored', attempts: [errored] }), testOf('shakes', { status: 'flaky', attempts: [failedAttempt('once'), attempt()] }),
  testOf('sleeps', { status: 'skipped', attempts: [], durationMs: 0 }),
]);

/** Texts as guests print them: any code unit, and what means something to XML, KTAP, Markdown and GitHub. */
const hostile = fc.oneof(
  fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 20 }).map((units) => String.fromCharCode(...units)),
  fc.array(fc.constantFrom(']]>', '</failure>', '&', '"', '\'', '\0', '\x1b[31m', '\ud800', '\n', '\r', '# SKIP', 'ok 1 x', '::error::', '%0A', '</script>', '<!--', '\u2028', '\ufffe'), { maxLength: 8 }).map((some) => some.join('')),
);
const hostileReport = fc.array(fc.record({ name: hostile, text: hostile, failed: fc.boolean() }), { minLength: 1, maxLength: 5 }).map((tests) => report(tests.map(({ name, text, failed }, index) =>
  testOf(`${index}${name}`, failed ? { status: 'failed', attempts: [failedAttempt(text, { events: [{ atMs: 0, lane: 'console', text }] })] } : {}))));

/** Well-formed for what is written here: elements that nest, quoted attributes, five entities, no forbidden character. */
function checkXml(text: string): string[] {
  // XML 1.0, 2.2: these may not stand in a document.
  expect(text).not.toMatch(/[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/);
  const open: string[] = [], seen: string[] = [];
  const rest = text.replace(/^<\?xml[^>]*\?>\n/, '').replace(/<(\/?)([\w-]+)((?: \w+="[^"<]*")*)(\/?)>/g, (_all, close: string, name: string, _attributes, empty: string) => {
    if (close !== '') expect(open.pop()).toBe(name);
    else {
      seen.push(name);
      if (empty === '') open.push(name);
    }
    return '';
  });
  expect(open).toEqual([]);
  expect(rest).not.toContain('<');
  expect(rest.replace(/&(amp|lt|gt|quot|apos);/g, '')).not.toContain('&');
  return seen;
}

describe('JUnit XML', () => {
  test('has a failure, an error, a flaky failure and a skip where they belong, and the totals of each file', () => {
    const text = renderJunit(all);
    expect(checkXml(text)).toEqual([
      'testsuites', 'testsuite', 'testcase', 'testcase', 'failure', 'testcase', 'error', 'system-err', 'testcase', 'flakyFailure', 'testcase', 'skipped',
    ]);
    expect(text).toContain('<testsuite name="suites/a/a.suite.ts" tests="5" failures="1" errors="1" skipped="1" time="6.000" timestamp="2026-11-21T20:00:00">');
    expect(text).toContain('<failure message="it is &quot;another&quot;" type="AssertionError">it is &quot;another&quot;</failure>');
    expect(text).toContain('name="fails &amp; falls"');
    expect(text).toContain('<system-err>kept: failures/b</system-err>');
  });

  test('is well-formed whatever tests and guests are called and say', () => {
    fc.assert(fc.property(hostileReport, (run) => { checkXml(renderJunit(run)); }));
  });
});

describe('KTAP', () => {
  test('is read back as what it says, by our own parser', () => {
    const text = renderKtap(all);
    expect(parseKtap(text)).toMatchObject({ ok: false, counts: { passed: 2, failed: 2, skipped: 1 } });
    expect(text).toMatch(/^ {2}# errored\n {2}# BootError: no <kernel>/m);
  });

  test('has as many tests, and as many that failed, whatever they are called and say', () => {
    fc.assert(fc.property(hostileReport, (run) => {
      const failed = run.tests.filter(({ status }) => status === 'failed').length;
      expect(parseKtap(renderKtap(run)).counts).toMatchObject({ failed, passed: run.tests.length - failed });
    }));
  });
});

describe('GitHub', () => {
  test('gets an annotation with file and line of what failed, and a warning of what is flaky', () => {
    expect(renderAnnotations(all)).toEqual([
      '::error file=suites/a/a.suite.ts,title=fails & falls::AssertionError: it is "another"',
      '::error file=suites/a/a.suite.ts,line=12,title=errs::BootError: no <kernel>%0Akept: failures/b',
      '::warning file=suites/a/a.suite.ts,title=shakes::AssertionError: once',
    ]);
  });

  test('gets a summary with the counts and the text of each failure, in which nothing is markup', () => {
    const text = renderStepSummary(all);
    expect(text).toMatch(/^### rootport: 1 passed, 1 failed, 1 errored, 1 flaky, 1 skipped\n/);
    expect(text).toContain('BootError: no &lt;kernel&gt;');
  });

  test('gets each annotation as one line, whatever is in it', () => {
    fc.assert(fc.property(hostileReport, (run) => {
      for (const line of renderAnnotations(run)) expect(line).toMatch(/^::(error|warning) file=[^:,\n\r]*(,line=\d+)?,title=[^:,\n\r]*::[^\n\r]*$/);
    }));
  });
});

test('data in the page ends no script and begins no comment, and is read back as it was', () => {
  fc.assert(fc.property(fc.array(hostile), (texts) => {
    const json = inertJson(texts);
    expect(json).not.toMatch(/[<>&\u2028\u2029]/);
    expect(JSON.parse(json)).toEqual(texts);
  }));
});

test('a text is plain without control characters and halves of characters, and keeps its lines and tabs', () => {
  expect(plainText('a\r\nb\tc\0\x1b[1m\ud83d\ude00\ud83d')).toBe('a\nb\tc\ufffd\ufffd[1m\u{1f600}\ufffd');
});
