// A headless Chromium out of Debian's package (without root, in the cache), on a leash, driven by the DevTools protocol
// over a pipe: descriptors 3 and 4, messages that end with a NUL. Source: chromedevtools.github.io, --remote-debugging-pipe.
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { execa } from 'execa';
import { ensureTree, terminalProgress } from '../../src/packages/index.ts';
import { leash, PARENT_DEATH_PREFIX } from '../../src/qemu/leash.ts';
import { within } from '../../src/wait.ts';

const TIMEOUT_MS = 60_000;

export interface Page {
  /** What an expression comes to, as JSON. Throws what it throws. */
  evaluate<T>(expression: string): Promise<T>;
  /** Open a file, in a window of this size and these colours; resolves when it is drawn. */
  open(file: string, look?: { width?: number; height?: number; dark?: boolean }): Promise<void>;
  key(key: string): Promise<void>;
  wheel(x: number, y: number, deltaY: number): Promise<void>;
  click(x: number, y: number): Promise<void>;
  screenshot(file: string): Promise<Buffer>;
  /** What the page asked the network or the disk for since it was opened, itself aside; and what its console said. */
  readonly requests: readonly string[];
  readonly complaints: readonly string[];
  end(): Promise<void>;
}

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Readonly<Record<string, unknown>>;
  readonly result?: unknown;
  readonly error?: { readonly message: string };
}

/** The packages must be in the cache or to be had: ensureTree()'s errors. */
export async function startChromium(): Promise<Page> {
  const tree = await ensureTree('chromium', terminalProgress());
  const directory = await mkdtemp(join(tmpdir(), 'rootport-chromium-'));
  const fonts = join(directory, 'fonts.conf');
  await mkdir(join(directory, 'profile'));
  await writeFile(fonts, `<?xml version="1.0"?><fontconfig><dir>${tree}/usr/share/fonts</dir><cachedir>${directory}/fonts</cachedir></fontconfig>`);
  // Not through the tree's loader: Chromium starts itself again by /proc/self/exe.
  const libraries = ['usr/lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu/pulseaudio', 'usr/lib'].map((one) => join(tree, one)).join(':');
  const held = leash(directory);
  const [file, ...args] = [...PARENT_DEATH_PREFIX,
    'env', `LD_LIBRARY_PATH=${libraries}`, `FONTCONFIG_FILE=${fonts}`, `HOME=${directory}`, join(tree, 'usr/lib/chromium/chromium'),
    '--headless', '--no-sandbox', '--no-zygote', '--disable-gpu', '--hide-scrollbars', '--disable-dev-shm-usage', '--disable-background-networking',
    `--user-data-dir=${join(directory, 'profile')}`, '--remote-debugging-pipe', 'about:blank'];
  const child = execa(file as string, args, { stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'], reject: false, cleanup: false });
  if (child.pid !== undefined) held.hold(child.pid);
  const [, , , to, from] = child.stdio as unknown as readonly Duplex[];
  if (to === undefined || from === undefined) throw new Error('Chromium has no pipe');
  const answers = new Map<number, (message: Message) => void>();
  const listeners = new Set<(message: Message) => void>();
  const requests: string[] = [], complaints: string[] = [];
  let rest = '', next = 1;
  let session: string | undefined; // eslint-disable-line prefer-const -- what finds it out is sent without it
  from.on('data', (chunk: Buffer) => {
    const messages = (rest + chunk.toString('utf8')).split('\0');
    rest = messages.pop() ?? '';
    for (const message of messages.map((one) => JSON.parse(one) as Message)) {
      if (message.id !== undefined) answers.get(message.id)?.(message);
      else for (const listener of listeners) listener(message);
    }
  });
  const gone = child.then(({ stderr }): never => { throw new Error(`Chromium ended:\n${stderr}`); });
  gone.catch(() => undefined);
  const send = async <T>(method: string, params: Readonly<Record<string, unknown>> = {}): Promise<T> => {
    const id = next++;
    const answer = new Promise<Message>((resolve) => { answers.set(id, resolve); });
    to.write(`${JSON.stringify({ id, method, params, ...(session === undefined ? {} : { sessionId: session }) })}\0`);
    const { result, error } = await within(Promise.race([answer, gone]), { timeoutMs: TIMEOUT_MS, what: `Chromium's answer to ${method}` });
    answers.delete(id);
    if (error !== undefined) throw new Error(`${method}: ${error.message}`);
    return result as T;
  };
  const event = (method: string): Promise<unknown> => {
    const come = new Promise<void>((resolve) => {
      const listener = (message: Message): void => {
        if (message.method !== method) return;
        listeners.delete(listener);
        resolve();
      };
      listeners.add(listener);
    });
    return within(Promise.race([come, gone]), { timeoutMs: TIMEOUT_MS, what: `Chromium's ${method}` });
  };
  listeners.add(({ method, params }) => {
    if (method === 'Network.requestWillBeSent') requests.push((params?.['request'] as { url: string }).url);
    if (method === 'Runtime.exceptionThrown' || method === 'Log.entryAdded' || method === 'Runtime.consoleAPICalled') complaints.push(JSON.stringify(params));
  });
  const { targetInfos } = await send<{ targetInfos: { targetId: string; type: string }[] }>('Target.getTargets');
  const target = targetInfos.find(({ type }) => type === 'page')?.targetId ?? (await send<{ targetId: string }>('Target.createTarget', { url: 'about:blank' })).targetId;
  session = (await send<{ sessionId: string }>('Target.attachToTarget', { targetId: target, flatten: true })).sessionId;
  for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await send(`${domain}.enable`);
  const mouse = (type: string, x: number, y: number, more: object = {}): Promise<unknown> => send('Input.dispatchMouseEvent', { type, x, y, ...more });
  const evaluate = async <T>(expression: string): Promise<T> => {
    const { result, exceptionDetails } = await send<{ result: { value: T }; exceptionDetails?: { text: string; exception?: { description?: string } } }>(
      'Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails !== undefined) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  };
  return {
    requests, complaints, evaluate,
    async open(path, { width = 1400, height = 900, dark = false } = {}) {
      await send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 600 });
      await send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }] });
      const loaded = event('Page.loadEventFired');
      await send('Page.navigate', { url: 'about:blank' });
      await loaded;
      requests.length = complaints.length = 0;
      const drawn = event('Page.loadEventFired');
      await send('Page.navigate', { url: pathToFileURL(path).href });
      await drawn;
      requests.shift();
      await evaluate('new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))');
    },
    async key(key) {
      await send('Input.dispatchKeyEvent', { type: 'keyDown', key, ...(key.length === 1 ? { text: key } : {}) });
      await send('Input.dispatchKeyEvent', { type: 'keyUp', key });
    },
    async wheel(x, y, deltaY) { await mouse('mouseWheel', x, y, { deltaX: 0, deltaY }); },
    async click(x, y) {
      for (const type of ['mousePressed', 'mouseReleased']) await mouse(type, x, y, { button: 'left', clickCount: 1 });
    },
    async screenshot(path) {
      const { data } = await send<{ data: string }>('Page.captureScreenshot', { format: 'png' });
      const bytes = Buffer.from(data, 'base64');
      await writeFile(path, bytes);
      return bytes;
    },
    async end() {
      child.kill('SIGKILL');
      await child;
      await held.release();
    },
  };
}
