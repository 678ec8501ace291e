// The page: summary, list of tests, keys, theme. The address's fragment is the test that is shown.

import { showTest, timeline } from './detail.js';
import { byId, dot, duration, make, sign } from './elements.js';
import { isBad } from './timeline.js';

const report = JSON.parse(byId('data').textContent);
const STATUSES = ['failed', 'errored', 'flaky', 'passed', 'skipped'];
const hiddenStatuses = new Set();
const counts = Object.fromEntries(STATUSES.map((status) => [status, report.tests.filter((test) => test.status === status).length]));
let listed = [];

function summary() {
  const { startedAt, durationMs, environment, tests, missingShards, surplus } = report;
  const said = STATUSES.filter((status) => counts[status] > 0).map((status) => `${counts[status]} ${status}`).join(', ') || 'no tests';
  document.title = `${said} · rootport report`;
  byId('when').textContent = `${said} · ${new Date(startedAt).toISOString().replace('T', ' ').slice(0, 19)} UTC · ${duration(durationMs)}`;
  byId('bar').setAttribute('aria-label', said);
  byId('bar').append(...STATUSES.filter((status) => counts[status] > 0).map((status) => {
    const part = make('span', { title: `${counts[status]} ${status}` });
    part.style.flexGrow = String(counts[status] / tests.length);
    part.style.background = `var(--${status})`;
    return part;
  }));
  if (missingShards.length > 0) byId('warnings').append(make('p', {}, `Not all of the run: ${missingShards.length === 1 ? 'shard' : 'shards'} ${missingShards.join(', ')} missing.`));
  if (surplus !== undefined) byId('warnings').append(make('p', { class: 'note' }, surplus));
  const facts = [['machine', environment.machines.join('\n') || 'none'], ['rootport', environment.rootport], ['Node', environment.node], ['host', environment.host], ...(report.shards === undefined ? [] : [['shards', report.shards.join(', ')]])];
  byId('environment').querySelector('dl').append(...facts.flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, value.split('\n').map((line) => make('div', {}, line)))]));
  byId('statuses').append(...STATUSES.filter((status) => counts[status] > 0).map((status) => make('button', {
    type: 'button', class: 'chip', 'aria-pressed': 'true', onclick: ({ currentTarget }) => {
      const shown = currentTarget.getAttribute('aria-pressed') !== 'true';
      currentTarget.setAttribute('aria-pressed', String(shown));
      hiddenStatuses[shown ? 'delete' : 'add'](status);
      list();
    },
  }, dot(status), `${counts[status]} ${status}`)));
}

function list() {
  const wanted = byId('search').value.toLowerCase().split(/\s+/).filter(Boolean);
  const order = byId('order').value;
  listed = report.tests.map((test, index) => ({ test, index })).filter(({ test }) => !hiddenStatuses.has(test.status) &&
    wanted.every((word) => `${test.file} ${test.name}`.toLowerCase().includes(word)));
  if (order === 'status') listed.sort((one, other) => STATUSES.indexOf(one.test.status) - STATUSES.indexOf(other.test.status));
  if (order === 'slow') listed.sort((one, other) => other.test.durationMs - one.test.durationMs);
  const rows = [];
  let file;
  for (const { test, index } of listed) {
    if (order !== 'slow' && test.file !== file) rows.push(make('li', { class: 'file' }, file = test.file));
    rows.push(make('li', {}, make('button', { type: 'button', 'data-index': index, onclick: () => open(index) },
      sign(test.status), make('span', {}, test.name || test.file), make('time', {}, test.status === 'skipped' ? '' : duration(test.durationMs)))));
  }
  byId('list').replaceChildren(...rows);
  byId('none').hidden = listed.length > 0;
  markCurrent();
}

const current = () => Number(/^#test-(\d+)$/.exec(location.hash)?.[1] ?? NaN);

function open(index) {
  location.hash = `#test-${index}`;
}

function route() {
  const test = report.tests[current()];
  document.body.dataset.open = String(test !== undefined);
  if (test !== undefined) showTest(test);
  else if (listed[0] !== undefined) showTest(listed[0].test);
  markCurrent();
}

function markCurrent() {
  const index = report.tests[current()] === undefined ? listed[0]?.index : current();
  for (const button of byId('list').querySelectorAll('button')) {
    const mine = Number(button.dataset.index) === index;
    button.setAttribute('aria-current', String(mine));
    if (mine) button.scrollIntoView({ block: 'nearest' });
  }
}

function go(step) {
  const index = report.tests[current()] === undefined ? listed[0]?.index : current();
  const at = listed.findIndex((one) => one.index === index);
  const next = listed[at + step];
  if (next !== undefined) open(next.index);
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  timeline?.draw();
}

const systemDark = matchMedia('(prefers-color-scheme: dark)');
let chosenTheme;
const applyTheme = () => theme(chosenTheme ?? (systemDark.matches ? 'dark' : 'light'));
function toggleTheme() {
  chosenTheme = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
  applyTheme();
}

const KEYS = {
  j: () => go(1), k: () => go(-1), '/': () => byId('search').focus(), e: () => byId('event-search')?.focus(),
  ArrowLeft: () => timeline?.pan(-0.2), ArrowRight: () => timeline?.pan(0.2),
  '+': () => timeline?.zoom(1 / 1.6), '=': () => timeline?.zoom(1 / 1.6), '-': () => timeline?.zoom(1.6), 0: () => timeline?.fit(),
  n: () => timeline?.step(1), p: () => timeline?.step(-1), f: () => timeline?.step(1, isBad),
  d: toggleTheme, '?': () => byId('help').showModal(), Escape: () => { location.hash = ''; },
};

addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId('help').open) return;
  const isField = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (isField && event.key === 'Escape') return event.target.blur();
  if (isField || KEYS[event.key] === undefined) return undefined;
  event.preventDefault();
  return KEYS[event.key]();
});
addEventListener('hashchange', route);
systemDark.addEventListener('change', applyTheme);
byId('theme').addEventListener('click', toggleTheme);
byId('help-button').addEventListener('click', () => byId('help').showModal());
byId('search').addEventListener('input', list);
byId('order').addEventListener('change', list);
applyTheme();
summary();
list();
route();
