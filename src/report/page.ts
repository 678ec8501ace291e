// The report as one HTML file that needs no network: page/ with the report's data in it. What a guest or a test printed
// is data: it stands in a JSON block that no text can end, and the page's policy runs no script but its own.
// Sources: HTML, "Restrictions for contents of script elements"; CSP 3, hashes.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { packageFile } from '../packages/index.ts';
import { boundTests, surplusText } from './event-bound.ts';
import { missingShards } from './merge.ts';
import type { RunReport } from './run-report.ts';

/** Modules, joined into one script in the order in which they need each other. */
const SCRIPTS = ['elements.js', 'timeline.js', 'detail.js', 'app.js'] as const;

export function renderPage(report: RunReport): string {
  const style = read('page.css');
  const script = `'use strict';{\n${SCRIPTS.map((name) => read(name).replace(/^import .*;$|^export (?=const|let|class|function)/gm, '')).join('\n')}\n}`;
  const bounded = { ...report, tests: boundTests(report.tests) };
  const data = inertJson({ ...bounded, missingShards: missingShards(report), surplus: surplusText(bounded) });
  const policy = `default-src 'none'; script-src '${hashOf(script)}'; style-src '${hashOf(style)}'; base-uri 'none'; form-action 'none'`;
  // By function: a replacement text would have its own ideas about `$&`.
  return read('page.html').replace(/\{\{(policy|style|data|script)\}\}/g, (_all, name: string) => ({ policy, style, data, script })[name] ?? '');
}

/** JSON that can stand in a script element: no text of it ends the element or begins a comment. */
export function inertJson(value: unknown): string {
  return JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function read(name: string): string {
  return readFileSync(packageFile(`src/report/page/${name}`), 'utf8');
}

function hashOf(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`;
}
