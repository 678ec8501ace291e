// KTAP (Documentation/dev-tools/ktap.rst, version 1), TAP 13 and 14 as kselftest prints them, and KUnit's
// dialect, parsed into results with their subtests. Kernel log prefixes are taken off. Strict where a lenient
// reader would call a half run a pass: a truncated plan, a number left out or a subtest without its result
// line is an error. Pure: it runs nothing.

export type KtapOutcome =
  | 'passed'
  | 'failed'
  | 'skipped'
  /** Failed as it was expected to (XFAIL), or as it does until it is written (TODO). */
  | 'expected-failure';

export interface KtapTest {
  readonly number: number;
  /** The description, or the number when there is none. */
  readonly name: string;
  readonly outcome: KtapOutcome;
  /** SKIP, TODO, XFAIL, TIMEOUT, ERROR; undefined without one. */
  readonly directive: string | undefined;
  /** What stands after the directive. */
  readonly reason: string;
  /** Lines of `# ...` and of anything else that stood before its result, without the indent. */
  readonly diagnostics: readonly string[];
  readonly subtests: readonly KtapTest[];
}

export interface KtapResult {
  /** True when there is at least one result, none failed, and the output is whole. Never true with `errors`. */
  readonly ok: boolean;
  readonly tests: readonly KtapTest[];
  /** What is wrong with the output itself, in order, with the line (counted from 1) where it showed. */
  readonly errors: readonly { readonly line: number; readonly message: string }[];
  /** `1..0 # SKIP reason` of the whole. */
  readonly skipped: string | undefined;
  /** Of the innermost tests. */
  readonly counts: Readonly<Record<KtapOutcome, number>>;
}

const KERNEL_PREFIX = /^(?:<\d{1,4}>)?\[ *\d{1,10}\.\d{6}\](?:\[ *[TC]\d{1,10}\])? /;
const VERSION = /^(?:KTAP version \d+|TAP version 1[34])$/;
const SUBTEST = /^# Subtest: (.*)$/;
const PLAN = /^1\.\.(\d{1,9})(?:\s+# (?:SKIP|skip)\b[ :]*(.*)|\s*#.*)?\s*$/;
const RESULT = /^(ok|not ok)(?: +(\d{1,9}))?(?=\s|$)(.*)$/;
const DIRECTIVE = /(?:^|\s)#\s*(SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b:?\s?(.*)$/i;
const DEPTH_MAX = 64;
const ERRORS_MAX = 200;

interface Group {
  readonly indent: number;
  readonly openedAt: number;
  name: string | undefined;
  plan: number | undefined;
  skip: string | undefined;
  readonly tests: KtapTest[];
  /** Since the last result. */
  diagnostics: string[];
  /** Of a nested group that has ended, for the result line that is to come. */
  subtests: readonly KtapTest[] | undefined;
}

/**
 * Parse a whole output: of a module's kernel log, of KUnit (`dmesg` or debugfs' `results`), of a kselftest.
 * Lines before the first version, plan or result line are not looked at. It never throws.
 */
export function parseKtap(text: string): KtapResult {
  const errors: { line: number; message: string }[] = [];
  const wrong = (line: number, message: string): void => { if (errors.length < ERRORS_MAX) errors.push({ line, message }); };
  const groups: Group[] = [];
  const root = newGroup(0, 1);
  let begun = false;
  /** After a version line: the group of its lines opens with the first, by their indent. */
  let number = 0;

  const close = (): void => {
    const group = groups.pop();
    if (group === undefined) return;
    checkPlan(group, number, wrong);
    const parent = groups.at(-1) ?? root;
    if (parent.subtests !== undefined) wrong(number, `the subtests${named(group)} follow others that have no result line`);
    parent.subtests = group.tests;
    parent.diagnostics.push(...group.diagnostics);
  };
  const enter = (indent: number): Group => {
    while (groups.length > 0 && (groups.at(-1)?.indent ?? 0) > indent) close();
    const top = groups.at(-1) ?? root;
    if (!begun && groups.length === 0) return root;
    if (indent <= top.indent || groups.length >= DEPTH_MAX) return top;
    const group = newGroup(indent, number);
    groups.push(group);
    return group;
  };
  /** The first line sets what counts as no indent: a log may indent it all. */
  let base = 0;

  for (const raw of text.split('\n')) {
    number += 1;
    const line = raw.replace(/\r+$/, '').replace(KERNEL_PREFIX, '');
    const content = line.trimStart();
    const spaces = line.length - content.length;
    const version = VERSION.test(content), subtest = SUBTEST.exec(content), plan = PLAN.exec(content), result = RESULT.exec(content);
    if (!version && subtest === null && plan === null && result === null) {
      if (begun && content !== '') (groupAt(groups, root, spaces - base)).diagnostics.push(content.replace(/^# ?/, ''));
      continue;
    }
    if (!begun) base = spaces;
    const indent = Math.max(0, spaces - base);
    const group = enter(indent);
    begun = true;
    if (version) {
      if (group !== root && group.tests.length + (group.plan ?? 0) > 0) wrong(number, 'a version line in the midst of a group');
      continue;
    }
    if (subtest !== null) {
      group.name ??= subtest[1] ?? '';
      continue;
    }
    if (plan !== null) {
      if (group.plan !== undefined) wrong(number, `a second plan${named(group)}`);
      group.plan = Number(plan[1]);
      group.skip = plan[2];
      continue;
    }
    if (result !== null) {
      const test = testOf(result, group);
      const expected = group.tests.length + 1;
      if (result[2] === undefined) wrong(number, `a result without a number: ${content.slice(0, 100)}`);
      else if (test.number !== expected) wrong(number, `result ${test.number}${named(group)} comes where ${expected} should`);
      if (test.outcome === 'passed' && test.subtests.some(({ outcome }) => outcome === 'failed')) wrong(number, `${JSON.stringify(test.name)} is ok, and a subtest of it is not`);
      group.tests.push(test);
      group.diagnostics = [];
      group.subtests = undefined;
    }
  }
  while (groups.length > 0) close();
  checkPlan(root, number, wrong);
  if (root.subtests !== undefined) wrong(number, 'the output ends with subtests that have no result line');
  if (root.tests.length === 0 && root.subtests === undefined && root.skip === undefined) wrong(number, begun ? 'no result' : 'no KTAP in it');
  const tests = [...root.tests];
  const counts = { passed: 0, failed: 0, skipped: 0, 'expected-failure': 0 };
  const count = (list: readonly KtapTest[]): void => {
    for (const test of list) {
      if (test.subtests.length > 0) count(test.subtests);
      else counts[test.outcome] += 1;
    }
  };
  count(tests);
  return { ok: errors.length === 0 && tests.length > 0 && tests.every(({ outcome }) => outcome !== 'failed'), tests, errors, skipped: root.skip, counts };
}

/**
 * The failures as text, a test a paragraph with its diagnostics, then what is wrong with the output; empty
 * for a result that is ok, or that was skipped as a whole.
 */
export function formatKtapFailures(result: KtapResult): string {
  const lines: string[] = [];
  const tell = (tests: readonly KtapTest[], path: readonly string[]): void => {
    for (const test of tests) {
      if (test.outcome !== 'failed') continue;
      const at = [...path, test.name];
      if (test.subtests.some(({ outcome }) => outcome === 'failed')) {
        tell(test.subtests, at);
        continue;
      }
      lines.push(`not ok ${at.join(' > ')}${test.directive === undefined ? '' : ` (${test.directive}${test.reason === '' ? '' : `: ${test.reason}`})`}`);
      lines.push(...test.diagnostics.map((line) => `  ${line}`));
    }
  };
  tell(result.tests, []);
  lines.push(...result.errors.map(({ line, message }) => `line ${line}: ${message}`));
  return lines.join('\n');
}

function newGroup(indent: number, openedAt: number): Group {
  return { indent, openedAt, name: undefined, plan: undefined, skip: undefined, tests: [], diagnostics: [], subtests: undefined };
}

/** The group that a line with this indent speaks of: it opens none and closes none. */
function groupAt(groups: readonly Group[], root: Group, indent: number): Group {
  return groups.findLast((group) => group.indent <= indent) ?? root;
}

function named({ name }: Group): string {
  return name === undefined ? '' : ` of ${JSON.stringify(name)}`;
}

function checkPlan(group: Group, line: number, wrong: (line: number, message: string) => void): void {
  const { plan, tests } = group;
  if (plan !== undefined && plan !== tests.length) {
    wrong(line, `the plan${named(group)} says ${plan}, and there ${tests.length === 1 ? 'is 1 result' : `are ${tests.length} results`}`);
  }
}

function testOf(result: RegExpExecArray, group: Group): KtapTest {
  const [, verdict = '', number, rest = ''] = result;
  const directive = DIRECTIVE.exec(rest);
  const description = (directive === null ? rest : rest.slice(0, directive.index)).replace(/^\s+(?:-\s+)?|^\s*-\s+/, '').replace(/\s*#.*$/, '').trim();
  const word = directive?.[1]?.toUpperCase();
  return {
    number: Number(number ?? 0),
    name: description === '' ? group.subtests === undefined ? String(number ?? '') : `test ${number ?? ''}` : description,
    outcome: outcomeOf(verdict === 'ok', word),
    directive: word,
    reason: directive?.[2]?.trim() ?? '',
    diagnostics: group.diagnostics,
    subtests: group.subtests ?? [],
  };
}

/** `ok` with XFAIL is kselftest's; `not ok` with TIMEOUT or ERROR failed; a skip is neither, by either word. */
function outcomeOf(ok: boolean, directive: string | undefined): KtapOutcome {
  if (directive === 'SKIP') return 'skipped';
  if (directive === 'XFAIL' || directive === 'TODO') return 'expected-failure';
  if (directive === 'TIMEOUT' || directive === 'ERROR') return 'failed';
  return ok ? 'passed' : 'failed';
}
