// Where this package's own files are: images/, qemu/ and suites/ stand beside src/ and dist/ alike.
import { fileURLToPath } from 'node:url';

/** The absolute path of a file of this package, from its root. */
export function packageFile(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}
