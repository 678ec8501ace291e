// One test: what it failed with, its witnesses, the timeline of an attempt, its tables and machines.

import { dot, duration, make, byId } from './elements.js';
import { isBad, Timeline } from './timeline.js';

const LINE = 20;
/** The one that is shown. */
export let timeline;

/** Draw a test, and of it the attempt at `index` (the one that failed unless told). */
export function showTest(test, index = firstFailed(test)) {
  const article = byId('test');
  timeline = undefined;
  const attempt = test.attempts[index];
  article.replaceChildren(
    make('div', { class: 'row' },
      make('button', { id: 'back', type: 'button', onclick: () => { location.hash = ''; } }, '← tests'),
      badge(test.status), make('span', { class: 'quiet' }, `${test.file} · ${duration(test.durationMs)}`)),
    make('h2', {}, test.name || test.file),
    ...(test.attempts.length > 1 ? [attempts(test, index)] : []),
    ...(attempt === undefined ? [make('p', { class: 'quiet' }, 'It was not run.')] : sections(attempt)),
  );
  article.scrollTop = 0;
}

function firstFailed({ attempts: all }) {
  const last = all.length - 1;
  const failed = all.findIndex(({ outcome }) => outcome !== 'passed');
  return last >= 0 && all[last].outcome === 'passed' && failed >= 0 ? failed : Math.max(0, last);
}

function badge(status) {
  const element = make('span', { class: 'badge' }, status);
  element.style.color = `var(--${status})`;
  return element;
}

function attempts(test, index) {
  return make('div', { class: 'row', role: 'group', 'aria-label': 'Attempts' }, test.attempts.map(({ outcome, durationMs }, at) =>
    make('button', { type: 'button', class: 'chip', 'aria-pressed': String(at === index), onclick: () => showTest(test, at) }, dot(outcome), `attempt ${at + 1}: ${outcome}, ${duration(durationMs)}`)));
}

function sections(attempt) {
  const { failures, witnesses, events, eventsDropped, tables, machines, folder } = attempt;
  return [
    ...failures.map((one) => failure(one, witnesses.length === 0)),
    ...(folder === undefined ? [] : [make('p', { class: 'quiet' }, 'Kept in ', make('code', {}, folder))]),
    ...witnesses.flatMap((one) => [make('h3', {}, `Witnesses · ${one.headline}`), witnessTable(one)]),
    ...(events.length === 0 && eventsDropped > 0 ? [make('p', { class: 'quiet' }, `Its ${eventsDropped} events are left out: the report is bounded.`)] : []),
    ...(events.length === 0 ? [] : [make('h3', {}, `Timeline · ${events.length} events${eventsDropped > 0 ? `, ${eventsDropped} not kept` : ''}`), timelineOf(events)]),
    ...tables.flatMap(({ title, columns, rows }) => [make('h3', {}, title), plainTable(columns, rows)]),
    ...machines.flatMap(machine),
  ];
}

/** Where there are witnesses they say it better than the text. */
function failure({ name, summary, text }, isOpen) {
  const label = name === 'AssertionError' ? summary : `${name}: ${summary}`;
  return make('div', { class: 'failure' }, make('strong', {}, label), make('details', { open: isOpen }, make('summary', { class: 'quiet' }, 'the whole text'), make('pre', {}, text)));
}

/** What is expected first; a cell that disagrees is marked. */
function witnessTable({ columns, expected, rows }) {
  const cell = (row, column) => make('td', { class: row.wrong.includes(column) ? 'wrong' : undefined }, row.says[column] ?? '-');
  return make('div', { class: 'scroll' }, make('table', {},
    make('thead', {}, make('tr', {}, make('th', {}, 'witness'), columns.map((one) => make('th', {}, one)), make('th', {}, ''))),
    make('tbody', {},
      make('tr', { class: 'expected' }, make('td', {}, 'expected'), columns.map((one) => make('td', {}, expected[one] ?? '(any)')), make('td', {})),
      rows.map((row) => make('tr', {}, make('td', {}, row.witness),
        row.missing === undefined ? columns.map((one) => cell(row, one)) : make('td', { class: 'missing', colspan: columns.length }, `missing: ${row.missing}`),
        make('td', { class: 'quiet' }, row.note ?? ''))))));
}

function plainTable(columns, rows) {
  return make('div', { class: 'scroll' }, make('table', {}, make('thead', {}, make('tr', {}, columns.map((one) => make('th', {}, one)))),
    make('tbody', {}, rows.map((row) => make('tr', {}, row.map((one) => make('td', {}, one)))))));
}

/** What brings the guest back: by its path where the page is a file, else by its path in the report. */
function shellCommand(state) {
  const path = location.protocol === 'file:' ? decodeURIComponent(new URL('.', location.href).pathname) + state : state;
  return `rootport shell --from ${/^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll('\'', '\'\\\'\'')}'`}`;
}

function machine({ description, repro, pciTree, state }, index, all) {
  return [
    make('h3', {}, all.length > 1 ? `Machine ${index + 1}` : 'Machine'),
    make('p', {}, description),
    ...(state === undefined ? [] : [make('p', {}, 'The guest as it was, alive again: ', make('code', { class: 'command' }, shellCommand(state)))]),
    ...(pciTree === undefined ? [] : [make('details', { open: true }, make('summary', {}, 'PCI tree'), make('pre', { class: 'wide' }, pciTree))]),
    make('details', {}, make('summary', {}, 'QEMU’s command line'), make('pre', {}, repro)),
  ];
}

function timelineOf(events) {
  const canvas = make('canvas', { role: 'img', 'aria-label': 'Timeline; the list below it has the same events' });
  const chosen = make('div', { id: 'event' }, make('span', { class: 'quiet' }, 'Choose an event.'));
  const pad = make('div', { class: 'pad' });
  const list = make('div', { id: 'events', tabindex: '0', role: 'listbox', 'aria-label': 'Events' }, pad);
  const count = make('span', { class: 'quiet' });
  const view = new Timeline(canvas, events, {
    onSelect: (event) => { tellEvent(chosen, event); scrollTo(list, view, event); rows(); },
    onRange: () => { if (timeline !== undefined) scrollTo(list, timeline, timeline.selected ?? timeline.shown.find(({ atMs }) => atMs >= timeline.from)); },
  });
  timeline = view;
  const rows = () => eventRows(list, pad, view);
  const refilter = () => {
    view.filter();
    view.draw();
    count.textContent = view.shown.length === events.length ? '' : `${view.shown.length} of ${events.length}`;
    rows();
  };
  const lanes = view.lanes.map((lane) => make('button', {
    type: 'button', class: 'lane', 'aria-pressed': 'true', onclick: ({ currentTarget }) => {
      const shown = currentTarget.getAttribute('aria-pressed') !== 'true';
      currentTarget.setAttribute('aria-pressed', String(shown));
      view.hidden[shown ? 'delete' : 'add'](lane);
      refilter();
    },
  }, dot(`lane-${lane}`), lane));
  const button = (text, title, onclick) => make('button', { type: 'button', title, 'aria-label': title, onclick }, text);
  list.addEventListener('scroll', rows);
  requestAnimationFrame(rows);
  return make('div', { class: 'timeline' },
    make('div', { class: 'row' }, lanes, make('input', {
      id: 'event-search', type: 'search', placeholder: 'filter events (e)', 'aria-label': 'Filter events by text', autocomplete: 'off', spellcheck: 'false',
      oninput: ({ currentTarget }) => { view.pattern = currentTarget.value; refilter(); },
    }), count, make('span', { class: 'spring' }),
    button('−', 'Zoom out', () => view.zoom(1.6)), button('+', 'Zoom in', () => view.zoom(1 / 1.6)), button('fit', 'The whole attempt', () => view.fit())),
    canvas, chosen, list);
}

function tellEvent(element, event) {
  if (event === undefined) return element.replaceChildren(make('span', { class: 'quiet' }, 'Choose an event.'));
  const { atMs, lane, text, durationMs, count, detail, machine: number } = event;
  return element.replaceChildren(
    make('div', {}, dot(`lane-${lane}`), make('span', { class: 'quiet' },
      ` ${lane} at ${(atMs / 1000).toFixed(6)} s${durationMs === undefined ? '' : ` for ${duration(durationMs)}`}${count > 1 ? `, ${count} times` : ''}${number > 0 ? `, machine ${number + 1}` : ''}`)),
    make('pre', {}, text), ...(detail === undefined ? [] : [make('pre', { class: 'quiet' }, detail)]));
}

/** Only the lines that are in sight are elements. */
function eventRows(list, pad, view) {
  pad.style.height = `${view.shown.length * LINE}px`;
  const first = Math.max(0, Math.floor(list.scrollTop / LINE) - 5);
  const some = view.shown.slice(first, first + Math.ceil((list.clientHeight || 280) / LINE) + 10);
  pad.replaceChildren(...some.map((event, index) => {
    const line = `${(event.atMs / 1000).toFixed(6).padStart(12)}  ${event.lane.padEnd(10)}  ${event.text}${event.count > 1 ? ` x${event.count}` : ''}`;
    const row = make('button', {
      type: 'button', tabindex: '-1', role: 'option', class: isBad(event) ? 'bad' : undefined, 'aria-current': event === view.selected ? 'true' : undefined,
      onclick: () => view.select(event, true),
    }, line);
    row.style.top = `${(first + index) * LINE}px`;
    return row;
  }));
}

function scrollTo(list, view, event) {
  if (event === undefined) return;
  const top = view.shown.indexOf(event) * LINE;
  if (top < list.scrollTop || top > list.scrollTop + list.clientHeight - LINE) list.scrollTop = Math.max(0, top - list.clientHeight / 2);
}
