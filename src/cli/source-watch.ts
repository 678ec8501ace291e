// Changes of a module's sources, as a promise of the next: editors write a file in several steps, which are one change.
// Source: Node's fs.watch, recursive on Linux since 19.1.
import { watch, type FSWatcher } from 'node:fs';

/** What an editor's steps take at most. */
const SETTLED_MS = 60;
/** What make and editors leave beside sources. */
const PRODUCTS = /(^|\/)\.|~$|\.(o|ko|mod|swp|tmp)$|\.mod\.c$|(^|\/)(modules\.order|Module\.symvers|4913)$/;

/** Whether a file of the module's directory, by its name there, is written by an author. */
export function isSource(file: string): boolean {
  return !PRODUCTS.test(file);
}

export class SourceWatch {
  readonly #watcher: FSWatcher;
  #changed: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #wake: ((file: string) => void) | undefined;

  constructor(directory: string) {
    this.#watcher = watch(directory, { recursive: true }, (_event, file) => {
      if (file === null || !isSource(file)) return;
      this.#changed = file;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#tell(), SETTLED_MS);
    });
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
    this.#watcher.close();
  }

  #tell(): void {
    this.#timer = undefined;
    if (this.#changed === undefined || this.#wake === undefined) return;
    const [file, wake] = [this.#changed, this.#wake];
    [this.#changed, this.#wake] = [undefined, undefined];
    wake(file);
  }
}
