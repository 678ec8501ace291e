// The page of a report in a real browser: what it shows, that hostile texts stay texts, that nothing is fetched, that it is
// used by keys, wheel and pointer, in light and dark and on a narrow screen. ROOTPORT_SCREENSHOTS=<directory> keeps what
// it looks like.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { execa } from 'execa';
import { PARENT_DEATH_PREFIX } from '../../src/qemu/leash.ts';
import type { Lane } from '../../src/recorder.ts';
import { renderPage } from '../../src/report/page.ts';
import { parseReport, type ReportedEvent, type RunReport } from '../../src/report/run-report.ts';
import { within } from '../../src/wait.ts';
import { runSuite } from '../failing/child-jest.ts';
import { startChromium, type Page } from './chromium.ts';
import { attempt, failedAttempt, report, testOf } from './sample-report.ts';

/** What a guest may print to get out of the place where it is shown. */
const HOSTILE = [
  '</script><script>document.title = "owned"</script>', '<img src="http://192.0.2.1/x" onerror="document.title=\'owned\'">', '<!--<script>', ']]>',
  '{{style}} $& $1', '\u2028\u2029\0\x1b[31m', '\ud800', '" onload="alert(1)', 'javascript:alert(1)', '&lt;b&gt;',
].join(' ');

let page: Page;
let directory: string;
beforeAll(async () => {
  directory = process.env['ROOTPORT_SCREENSHOTS'] ?? mkdtempSync(join(tmpdir(), 'page-'));
  mkdirSync(directory, { recursive: true });
  page = await startChromium();
});
afterAll(async () => {
  await page.end();
  if (process.env['ROOTPORT_SCREENSHOTS'] === undefined) rmSync(directory, { recursive: true });
});

async function open(run: RunReport, name: string, look: Parameters<Page['open']>[1] = {}): Promise<Buffer> {
  const file = join(directory, `${name}.html`);
  writeFileSync(file, renderPage(run));
  await page.open(file, look);
  return page.screenshot(join(directory, `${name}.png`));
}

const text = (selector: string): Promise<string> => page.evaluate(`document.querySelector(${JSON.stringify(selector)})?.textContent ?? ''`);
const count = (selector: string): Promise<number> => page.evaluate(`document.querySelectorAll(${JSON.stringify(selector)}).length`);
/** Different colours on the canvas: an empty one has one. */
const colours = (): Promise<number> => page.evaluate(`(() => { const c = document.querySelector('canvas'); const d = new Uint32Array(c.getContext('2d').getImageData(90, 0, c.width - 90, c.height).data.buffer); return new Set(d).size; })()`);

function eventsOf(times: number): ReportedEvent[] {
  const lanes: Lane[] = ['test', 'qmp', 'vhost-user', 'ring', 'interrupt', 'guest', 'console'];
  return Array.from({ length: times }, (_, index): ReportedEvent => {
    const lane = lanes[index % lanes.length] ?? 'test';
    return { atMs: index * 0.5, lane, text: `${lane} ${index}`, ...(lane === 'guest' || lane === 'test' ? { durationMs: 3 } : {}), ...(lane === 'ring' ? { count: 3 } : {}) };
  });
}

const machine = { description: 'q35, QEMU 10.0.2, Linux Debian 6.1, tcg', repro: 'qemu-system-x86_64 -nodefaults', pciTree: '00:00.0 8086:29c0 Host bridge' };
const failing = report([
  testOf('passes', { attempts: [attempt({ events: eventsOf(70), machines: [machine] })] }),
  testOf('claims a wrong BAR', {
    status: 'failed', attempts: [failedAttempt('expect(function).toHaveBar(claim)\n  table', {
      folder: 'failures/a', machines: [{ ...machine, state: 'failures/it\'s a' }], events: [...eventsOf(700), { atMs: 351, lane: 'test', text: 'expect toHaveBar', durationMs: 4, detail: 'failed: it is another' }],
      witnesses: [{ headline: 'BAR 0', columns: ['size'], expected: { size: '4 KiB' }, rows: [
        { witness: 'device: config space', says: { size: '4 KiB' }, wrong: [] }, { witness: 'VMM: query-pci', says: { size: '8 KiB' }, wrong: ['size'] },
        { witness: 'guest: lspci', says: {}, missing: 'no lspci', wrong: [] }] }],
      tables: [{ title: 'Ledger', columns: ['vector', 'fired', 'handled'], rows: [['0', '3', '2']] }],
    })],
  }),
  testOf('shakes', { status: 'flaky', attempts: [failedAttempt('once'), attempt()] }),
  testOf('is skipped', { status: 'skipped', attempts: [], durationMs: 0 }),
]);

describe('the page of a run', () => {
  test('that passed shows its tests, a timeline and the PCI tree, in light', async () => {
    await open(report([testOf('passes', { attempts: [attempt({ events: eventsOf(70), machines: [machine] })] })]), 'passing');
    expect(await text('title')).toBe('1 passed · rootport report');
    expect(await text('#list')).toContain('passes');
    expect(await text('article')).toContain('Host bridge');
    expect(await colours()).toBeGreaterThan(7);
    expect(await page.evaluate('document.documentElement.dataset.theme')).toBe('light');
    expect(page.complaints).toEqual([]);
  });

  test('with a failure opens at it, with the witness that disagrees marked, its ledger and its folder, in dark', async () => {
    await open(failing, 'failing', { dark: true });
    expect(await text('article h2')).toBe('claims a wrong BAR');
    expect(await text('td.wrong')).toBe('8 KiB');
    expect(await text('td.missing')).toBe('missing: no lspci');
    expect(await text('article')).toContain('failures/a');
    expect(await text('code.command')).toBe(`rootport shell --from '${directory}/failures/it'\\''s a'`);
    expect(await text('article')).toMatch(/Ledger.*vector.*fired/);
    expect(await page.evaluate('document.documentElement.dataset.theme')).toBe('dark');
    await page.key('d');
    expect(await page.evaluate('document.documentElement.dataset.theme')).toBe('light');
    expect(page.complaints).toEqual([]);
  });

  test('shows a flaky test as flaky, with the attempt that failed', async () => {
    await open(failing, 'flaky');
    for (let presses = 0; presses < 5 && await text('article h2') !== 'shakes'; presses += 1) await page.key('j');
    expect(await text('article .badge')).toBe('flaky');
    expect(await text('article')).toMatch(/attempt 1: failed.*attempt 2: passed/);
    expect(await text('.failure')).toContain('once');
  });

  test('is filtered by name and status, and says when nothing matches', async () => {
    await open(failing, 'filtered');
    await page.key('/');
    for (const letter of 'bar') await page.key(letter);
    expect(await count('#list button')).toBe(1);
    await page.key('x');
    expect(await page.evaluate('document.querySelector("#none").hidden')).toBe(false);
    await page.evaluate('(() => { const s = document.querySelector("#search"); s.value = ""; s.dispatchEvent(new Event("input")); })()');
    expect(await count('#list button')).toBe(4);
    await page.evaluate('[...document.querySelectorAll("#statuses button")].find((one) => one.textContent.includes("passed")).click()');
    expect(await count('#list button')).toBe(3);
  });

  test('leads by keys to the event that failed, and filters events by lane and text', async () => {
    await open(failing, 'events');
    await page.key('f');
    expect(await text('#event')).toMatch(/test at 0.351000 s for 4.0 ms.*expect toHaveBar.*failed: it is another/);
    const lines = (): Promise<number> => page.evaluate('document.querySelector("#events .pad").offsetHeight / 20');
    expect(await lines()).toBe(701);
    await page.evaluate('[...document.querySelectorAll(".lane")].find((one) => one.textContent === "qmp").click()');
    expect(await lines()).toBe(601);
    await page.evaluate('(() => { const s = document.querySelector("#event-search"); s.value = "RING 1"; s.dispatchEvent(new Event("input")); })()');
    expect(await lines()).toBe(await page.evaluate(`${JSON.stringify(eventsOf(700).filter((one) => one.text.includes('ring 1')).length)}`));
    // Only what is in sight is drawn as elements.
    expect(await count('#events button')).toBeLessThan(40);
  });

  test('zooms by the wheel and by keys, and chooses an event by a click', async () => {
    const many = report([testOf('many', { attempts: [attempt({ events: eventsOf(40_000) })] })]);
    await open(many, 'many');
    const before = await colours();
    expect(before).toBeGreaterThan(5);
    const box = await page.evaluate<{ x: number; y: number; width: number }>('(() => { const { x, y, width } = document.querySelector("canvas").getBoundingClientRect(); return { x, y, width }; })()');
    for (let turn = 0; turn < 12; turn += 1) await page.wheel(box.x + box.width / 2, box.y + 40, -400);
    await page.key('+');
    await page.screenshot(join(directory, 'zoomed.png'));
    await page.evaluate('new Promise((done) => requestAnimationFrame(() => done(1)))');
    await page.click(box.x + box.width / 2, box.y + 22 + 12);
    expect(await text('#event')).toMatch(/test \d+/);
    const chosen = await text('#event');
    await page.key('n');
    expect(await text('#event')).not.toBe(chosen);
    await page.key('0');
    expect(page.complaints).toEqual([]);
    // A figure for who looks: the time of a frame with all of them.
    const frames = await page.evaluate<number[]>(`(async () => { const times = []; let last = performance.now(); for (let i = 0; i < 20; i += 1) { dispatchEvent(new KeyboardEvent('keydown', { key: i % 2 ? '+' : '-' })); await new Promise(requestAnimationFrame); const now = performance.now(); times.push(now - last); last = now; } return times; })()`);
    expect(frames).toHaveLength(20);
    if (process.env['ROOTPORT_SCREENSHOTS'] !== undefined) process.stderr.write(`frames with 40,000 events, ms: ${frames.map((one) => one.toFixed(1)).join(' ')}\n`);
  });

  test('on a narrow screen shows the list, then the test in its place, and nothing wider than the screen', async () => {
    await open(failing, 'narrow-list', { width: 390, height: 800 });
    expect(await page.evaluate('getComputedStyle(document.querySelector("article")).display')).toBe('none');
    await page.evaluate('document.querySelector("#list button").click()');
    await page.evaluate('new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))');
    expect(await page.evaluate('getComputedStyle(document.querySelector("nav")).display')).toBe('none');
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(390);
    await page.screenshot(join(directory, 'narrow.png'));
    await page.key('Escape');
    await page.evaluate('new Promise((done) => setTimeout(() => done(1), 0))');
    expect(await page.evaluate('getComputedStyle(document.querySelector("nav")).display')).not.toBe('none');
  });

  test('takes what a guest, a test and its tables say as text, fetches nothing, and runs no script but its own', async () => {
    const hostile: ReportedEvent = { atMs: 1, lane: 'console', text: HOSTILE, detail: HOSTILE };
    const run = report([testOf(HOSTILE, {
      file: HOSTILE, status: 'failed',
      attempts: [failedAttempt(HOSTILE, {
        folder: HOSTILE, events: [hostile], machines: [{ description: HOSTILE, repro: HOSTILE, pciTree: HOSTILE, state: HOSTILE }],
        witnesses: [{ headline: HOSTILE, columns: [HOSTILE], expected: { [HOSTILE]: HOSTILE }, rows: [{ witness: HOSTILE, says: { [HOSTILE]: HOSTILE }, note: HOSTILE, wrong: [HOSTILE] }] }],
        tables: [{ title: HOSTILE, columns: [HOSTILE], rows: [[HOSTILE]] }],
      })],
    })], { environment: { rootport: HOSTILE, node: HOSTILE, host: HOSTILE, machines: [HOSTILE] }, shards: ['1/2'] });
    await open(run, 'hostile');
    await page.key('n');
    expect(await text('title')).toBe('1 failed · rootport report');
    expect(await count('img')).toBe(0);
    expect(await count('script')).toBe(2);
    expect(await text('#event pre')).toContain('<img src="http://192.0.2.1/x" onerror=');
    expect(await text('#warnings')).toContain('2/2');
    expect(page.requests).toEqual([]);
    expect(page.complaints).toEqual([]);
    // Nor would markup that got in: the page's policy.
    await page.evaluate('document.body.insertAdjacentHTML("beforeend", `<img src="http://192.0.2.1/x" onerror="document.title=\'owned\'">`)');
    await page.evaluate('(() => { const s = document.createElement("script"); s.textContent = "document.title = \'owned\'"; document.body.append(s); })()');
    expect(await text('title')).toBe('1 failed · rootport report');
    expect(page.complaints.join()).toContain('Content Security Policy');
  });
});

describe('what a real run wrote', () => {
  let run: RunReport;
  beforeAll(async () => {
    process.env['ROOTPORT_REPORT'] = join(directory, 'crash');
    try {
      await runSuite('guest-panic');
    } finally {
      delete process.env['ROOTPORT_REPORT'];
    }
    run = parseReport(readFileSync(join(directory, 'crash/report.json'), 'utf8'), 'report.json');
  });

  test('has the crash with its console, what came before it on every side, and a folder that is whole', async () => {
    await page.open(join(directory, 'crash/index.html'));
    await page.screenshot(join(directory, 'crash.png'));
    expect(await text('article h2')).toBe('must fail: the kernel panics in the background');
    expect(await text('.failure')).toContain('Kernel panic - not syncing: sysrq triggered crash');
    await page.key('f');
    expect(await text('#event')).toMatch(/console at .*Kernel panic|guest at .*/);
    expect(page.complaints).toEqual([]);
    const crashed = run.tests.find(({ status }) => status === 'failed')?.attempts[0];
    expect(crashed?.events.filter(({ lane }) => lane === 'console').map((one) => one.text).join('\n')).toContain('Kernel panic');
    expect([...new Set(crashed?.events.map(({ lane }) => lane))]).toEqual(expect.arrayContaining(['qmp', 'guest', 'console']));
    const folder = join(directory, 'crash', crashed?.folder ?? '');
    expect(readdirSync(folder).sort()).toEqual(expect.arrayContaining(['console.log', 'dmesg.log', 'failure.txt', 'qemu-stderr.log', 'qmp.log', 'repro.sh', 'trace.log']));
    expect(readFileSync(join(folder, 'dmesg.log'), 'utf8')).toContain('Kernel panic');
    expect(readFileSync(join(folder, 'qmp.log'), 'utf8')).toMatch(/query-pci|trace-event|query-name/);
  });

  test('boots the same machine by hand with its repro.sh', async () => {
    const folder = run.tests.flatMap(({ attempts }) => attempts).find((one) => one.folder !== undefined)?.folder ?? '';
    const port = await new Promise<number>((resolve) => {
      const server = createServer().listen(0, '127.0.0.1', () => {
        const { port: free } = server.address() as AddressInfo;
        server.close(() => resolve(free));
      });
    });
    const [file, ...args] = [...PARENT_DEATH_PREFIX, 'sh', join(directory, 'crash', folder, 'repro.sh')];
    const child = execa(file as string, args, { env: { PORT: String(port) }, stdin: 'pipe', all: true, reject: false, cleanup: false });
    let said = '';
    const ready = new Promise<void>((resolve) => child.all.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes('rootport-ready repro')) resolve();
    }));
    try {
      await within(Promise.race([ready, child.then(() => { throw new Error(`it ended:\n${said}`); })]), { timeoutMs: 120_000, what: 'repro.sh to boot' });
    } finally {
      child.stdin.write('\x01x'); // the terminal's own way to end QEMU
      await within(child, { timeoutMs: 20_000, what: 'repro.sh to end' });
    }
    expect(said).toMatch(/QMP: .*qmp\.sock/);
  });
});
