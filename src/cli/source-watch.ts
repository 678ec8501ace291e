// Changes of a module's sources, and of suites beside it, as a promise of the next: editors write a file in several
// steps, which are one change.
// Source: Node's fs.watch, recursive on Linux since 19.1.
import { watch, type FSWatcher } from 'node:fs';

/** What an editor's steps take at most. */
const SETTLED_MS = 60;
/** What make and editors leave beside sources. */
const PRODUCTS = /(^|\/)(\.|node_modules\/|rootport-report\/)|~$|\.(o|ko|mod|swp|tmp)$|\.mod\.c$|(^|\/)(modules\.order|Module\.symvers|4913)$/;

/** Whether a file of the module's directory, by its name there, is written by an author. */
export function isSource(file: string): boolean {
  return !PRODUCTS.test(file);
}

/** Whether a file of a suite's directory is one that suites are made of. */
export function isSuiteSource(file: string): boolean {
  return /^[^.].*\.([cm]?[jt]s|json)$/.test(file);
}

export class SourceWatch {
  readonly #watchers: readonly FSWatcher[];
  #changed: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #wake: ((file: string) => void) | undefined;

  /** @param suites directories of suites: what a suite is written in counts there, not what is in directories below */
  constructor(directory: string, suites: readonly string[] = []) {
    this.#watchers = [
      watch(directory, { recursive: true }, (_event, file) => this.#heard(file, isSource)),
      ...suites.map((one) => watch(one, (_event, file) => this.#heard(file, isSuiteSource))),
    ];
  }

  /** The name of a file that changed since the last call; one that changed meanwhile is told at once. */
  next(): Promise<string> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      if (this.#timer === undefined) this.#tell();
    });
  }

  close(): void {
    clearTimeout(this.#timer);
    for (const one of this.#watchers) one.close();
  }

  #heard(file: string | null, counts: (file: string) => boolean): void {
    if (file === null || !counts(file)) return;
    this.#changed = file;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#tell(), SETTLED_MS);
  }

  #tell(): void {
    this.#timer = undefined;
    if (this.#changed === undefined || this.#wake === undefined) return;
    const [file, wake] = [this.#changed, this.#wake];
    [this.#changed, this.#wake] = [undefined, undefined];
    wake(file);
  }
}
