// An attempt's events in lanes on one clock, drawn on a canvas. A frame looks at every event once and draws at most one
// mark a pixel and lane, so that tens of thousands stay smooth.

import { colourOf } from './elements.js';

const LANES = ['test', 'qmp', 'vhost-user', 'device', 'ring', 'interrupt', 'guest', 'console'];
const ROW = 24, AXIS = 22, GUTTER = 84, NARROWEST_MS = 0.005;

/** Something went wrong there: a command failed, a claim did not hold, the kernel complained. */
export const isBad = ({ detail, lane, text }) => (detail !== undefined && /^(failed|exit [1-9]|killed|not over|\S*expect\()/.test(detail)) ||
  (lane === 'console' && /\b(BUG|WARNING|Oops|Kernel panic|Call Trace|KASAN|INFO: task)\b/.test(text));

export class Timeline {
  /** `onSelect(event or undefined)`; `onRange()` when what is visible changed. */
  constructor(canvas, events, { onSelect, onRange }) {
    this.canvas = canvas;
    this.events = events;
    this.onSelect = onSelect;
    this.onRange = onRange;
    this.hidden = new Set();
    this.pattern = '';
    this.selected = undefined;
    this.hover = undefined;
    this.pointers = new Map();
    this.filter();
    this.fit();
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener('wheel', (event) => this.wheel(event), { passive: false });
    canvas.addEventListener('pointerdown', (event) => this.down(event));
    canvas.addEventListener('pointermove', (event) => this.move(event));
    for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, (event) => this.up(event));
    canvas.addEventListener('pointerleave', () => { this.hover = undefined; canvas.title = ''; this.draw(); });
  }

  /** Lanes that have events, in order. */
  get lanes() {
    return LANES.filter((lane) => this.events.some((event) => event.lane === lane));
  }

  filter() {
    const wanted = this.pattern.toLowerCase();
    this.shown = this.events.filter(({ lane, text, detail = '' }) => !this.hidden.has(lane) &&
      (wanted === '' || text.toLowerCase().includes(wanted) || detail.toLowerCase().includes(wanted)));
    this.rows = this.lanes.filter((lane) => !this.hidden.has(lane));
    this.byRow = this.rows.map((lane) => this.shown.filter((event) => event.lane === lane));
    if (this.selected !== undefined && !this.shown.includes(this.selected)) this.select(undefined);
  }

  fit() {
    let from = Infinity, to = -Infinity;
    for (const { atMs, durationMs = 0 } of this.events) {
      from = Math.min(from, atMs);
      to = Math.max(to, atMs + durationMs);
    }
    if (from > to) [from, to] = [0, 1];
    const room = Math.max((to - from) * 0.02, 0.05);
    this.bounds = [from - room, to + room];
    this.view(from - room, to + room);
  }

  view(from, to) {
    const [least, most] = this.bounds;
    const width = Math.min(Math.max(to - from, NARROWEST_MS), most - least);
    const start = Math.min(Math.max(from, least), most - width);
    this.from = start;
    this.to = start + width;
    this.draw();
    this.onRange();
  }

  zoom(factor, around = (this.from + this.to) / 2) {
    this.view(around - (around - this.from) * factor, around + (this.to - around) * factor);
  }

  pan(fraction) {
    const by = (this.to - this.from) * fraction;
    this.view(this.from + by, this.to + by);
  }

  select(event, follow = false) {
    this.selected = event;
    if (event !== undefined && follow && (event.atMs < this.from || event.atMs > this.to)) {
      const half = (this.to - this.from) / 2;
      this.view(event.atMs - half, event.atMs + half);
    }
    this.onSelect(event);
    this.draw();
  }

  /** The next shown event after the selected one; `step` -1: the one before. */
  step(step, wanted = () => true) {
    const { shown } = this;
    let at = this.selected === undefined ? (step > 0 ? shown.findIndex(({ atMs }) => atMs >= this.from) - 1 : shown.length) : shown.indexOf(this.selected);
    do at += step; while (at >= 0 && at < shown.length && !wanted(shown[at]));
    if (shown[at] !== undefined) this.select(shown[at], true);
  }

  draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => { this.pending = false; this.paint(); });
  }

  x(ms) {
    return GUTTER + ((ms - this.from) / (this.to - this.from)) * (this.width - GUTTER);
  }

  ms(x) {
    return this.from + ((x - GUTTER) / (this.width - GUTTER)) * (this.to - this.from);
  }

  paint() {
    const { canvas, rows } = this;
    this.width = canvas.clientWidth;
    const height = AXIS + rows.length * ROW;
    if (this.width <= GUTTER) return;
    const ratio = devicePixelRatio || 1;
    canvas.style.height = `${height}px`;
    if (canvas.width !== Math.round(this.width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(this.width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const began = performance.now();
    const g = canvas.getContext('2d');
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, this.width, height);
    g.font = '12px system-ui, "DejaVu Sans", sans-serif';
    g.textBaseline = 'middle';
    const colours = { line: colourOf('line'), quiet: colourOf('quiet'), paper: colourOf('paper'), bad: colourOf('bad'), ink: colourOf('ink'), focus: colourOf('focus') };
    this.axis(g, height, colours);
    rows.forEach((lane, row) => this.lane(g, row, colourOf(`lane-${lane}`), colours));
    g.fillStyle = colours.paper;
    g.fillRect(0, 0, GUTTER, height);
    g.textAlign = 'left';
    rows.forEach((lane, row) => {
      g.fillStyle = colourOf(`lane-${lane}`);
      g.fillText(lane, 8, AXIS + row * ROW + ROW / 2);
    });
    this.mark(g, this.selected, colours.focus);
    this.mark(g, this.hover, colours.ink);
    this.paintedMs = performance.now() - began;
  }

  axis(g, height, { line, quiet }) {
    const aim = (this.to - this.from) / Math.max(2, (this.width - GUTTER) / 100);
    const power = 10 ** Math.floor(Math.log10(aim));
    const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= aim);
    g.strokeStyle = line;
    g.fillStyle = quiet;
    g.lineWidth = 1;
    g.textAlign = 'center';
    g.beginPath();
    for (let at = Math.ceil(this.from / step) * step; at <= this.to; at += step) {
      const x = Math.round(this.x(at)) + 0.5;
      g.moveTo(x, AXIS);
      g.lineTo(x, height);
      if (x > GUTTER + 20 && x < this.width - 24) g.fillText(tick(at, step), x, AXIS / 2);
    }
    for (let row = 0; row <= this.rows.length; row += 1) {
      g.moveTo(0, AXIS + row * ROW + 0.5);
      g.lineTo(this.width, AXIS + row * ROW + 0.5);
    }
    g.stroke();
  }

  lane(g, row, colour, { bad, ink }) {
    const top = AXIS + row * ROW + 4, tall = ROW - 8;
    let drawnTo = -1, drawnBad = false;
    const labels = [];
    for (const event of this.byRow[row]) {
      const start = this.x(event.atMs);
      if (start > this.width) break;
      const end = Math.max(start + 2, this.x(event.atMs + (event.durationMs ?? 0)));
      if (end < GUTTER) continue;
      event.bad ??= isBad(event);
      // In a pixel that has a mark already only a failure is worth another.
      if (end <= drawnTo + 0.5 && (!event.bad || drawnBad)) continue;
      const left = Math.max(start, GUTTER), wide = end - left;
      const isSpan = wide > 3;
      g.globalAlpha = isSpan ? 0.55 : 0.9;
      g.fillStyle = event.bad ? bad : colour;
      g.fillRect(left, top, wide, tall);
      g.globalAlpha = 1;
      if (isSpan && start >= GUTTER) g.fillRect(left, top, 1.5, tall);
      // A label ends where the next mark of its lane begins.
      const last = labels.at(-1);
      if (last !== undefined) last.end = Math.min(last.end, left);
      labels.push({ text: event.text, left, end });
      if (!isSpan || end > drawnTo) drawnTo = Math.max(drawnTo, isSpan ? left + 1 : end);
      drawnBad = event.bad;
    }
    g.fillStyle = ink;
    g.textAlign = 'left';
    for (const { text, left, end } of labels) {
      if (end - left <= 46) continue;
      g.save();
      g.beginPath();
      g.rect(left, top, end - left - 4, tall);
      g.clip();
      g.fillText(text, left + 5, top + tall / 2);
      g.restore();
    }
  }

  mark(g, event, colour) {
    const row = event === undefined ? -1 : this.rows.indexOf(event.lane);
    if (row < 0) return;
    const start = this.x(event.atMs), end = Math.max(start + 2, this.x(event.atMs + (event.durationMs ?? 0)));
    if (end < GUTTER || start > this.width) return;
    g.strokeStyle = colour;
    g.lineWidth = 2;
    g.strokeRect(Math.max(start, GUTTER) - 2, AXIS + row * ROW + 2, end - Math.max(start, GUTTER) + 4, ROW - 4);
  }

  /** The event at a place: the shortest there, or the nearest within some pixels. */
  at(x, y) {
    const events = this.byRow[Math.floor((y - AXIS) / ROW)];
    if (events === undefined || x < GUTTER) return undefined;
    let best, distance = 6, length = Infinity;
    for (const event of events) {
      const start = this.x(event.atMs), end = this.x(event.atMs + (event.durationMs ?? 0));
      const away = x < start ? start - x : x > end ? x - end : 0;
      if (away < distance || (away === distance && end - start < length)) [best, distance, length] = [event, away, end - start];
    }
    return best;
  }

  wheel(event) {
    event.preventDefault();
    const by = event.deltaMode === 1 ? 30 : 1;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.pan(((event.deltaX || event.deltaY) * by) / 1000);
    else this.zoom(Math.exp(event.deltaY * by * 0.0015), this.ms(event.offsetX));
  }

  down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.offsetX, began: event.offsetX });
  }

  move(event) {
    const pointer = this.pointers.get(event.pointerId);
    if (pointer === undefined) {
      const hover = this.at(event.offsetX, event.offsetY);
      if (hover === this.hover) return;
      this.hover = hover;
      this.canvas.title = hover === undefined ? '' : `${hover.text}${hover.count > 1 ? ` x${hover.count}` : ''}`;
      return this.draw();
    }
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other === undefined) this.pan((pointer.x - event.offsetX) / (this.width - GUTTER));
    else if (Math.abs(event.offsetX - other.x) > 8) this.zoom(Math.abs(pointer.x - other.x) / Math.abs(event.offsetX - other.x), this.ms(other.x));
    pointer.x = event.offsetX;
  }

  up(event) {
    const pointer = this.pointers.get(event.pointerId);
    this.pointers.delete(event.pointerId);
    if (event.type === 'pointerup' && pointer !== undefined && Math.abs(event.offsetX - pointer.began) < 4) this.select(this.at(event.offsetX, event.offsetY));
  }
}

function tick(ms, step) {
  if (step >= 1000) return `${Math.round(ms / 1000)} s`;
  if (step >= 100) return `${(ms / 1000).toFixed(1)} s`;
  if (step >= 1) return `${Math.round(ms)} ms`;
  return `${ms.toFixed(Math.min(3, Math.ceil(-Math.log10(step))))} ms`;
}
