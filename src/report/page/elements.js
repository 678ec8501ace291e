// Making elements. Text from a report goes into text nodes only: a kernel log is not markup.

/** make('p', { class: 'quiet' }, 'text', child): `on...` are listeners. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? '' : String(value));
  }
  element.append(...children.flat().filter((child) => child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

export function duration(ms) {
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

/** A dot of a status or a lane; its colour is a variable of the style sheet. */
export function dot(variable) {
  const element = make('span', { class: 'dot', 'aria-hidden': 'true' });
  element.style.background = `var(--${variable})`;
  return element;
}

export function colourOf(variable) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${variable}`).trim();
}

const SHAPES = { passed: '✓', failed: '✗', errored: '!', flaky: '~', skipped: '–' };

/** A status for the eye and for a screen reader: its sign says it without colour. */
export function sign(status) {
  const element = make('span', { title: status, role: 'img', 'aria-label': status }, SHAPES[status]);
  element.style.color = `var(--${status})`;
  element.style.fontWeight = '700';
  return element;
}
