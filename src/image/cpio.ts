// A cpio archive in the "newc" format, as the kernel unpacks it into the initramfs
// (Linux: Documentation/driver-api/early-userspace/buffer-format.rst). Writing it here needs no root:
// device nodes and owners are numbers in a header.

const S_IFDIR = 0o040000, S_IFREG = 0o100000, S_IFLNK = 0o120000, S_IFCHR = 0o020000;

interface Entry {
  readonly mode: number;
  readonly content: Buffer;
  readonly major: number;
  readonly minor: number;
}

/** Paths are from the root, with or without a leading slash; a path given again replaces what it was. */
export class CpioArchive {
  readonly #entries = new Map<string, Entry>();

  directory(path: string, mode = 0o755): void {
    const clean = path.replace(/^\/+|\/+$/g, '');
    if (clean === '' || this.#entries.has(clean)) return;
    this.#add(clean, S_IFDIR | mode, Buffer.alloc(0));
  }

  file(path: string, content: Buffer | string, mode = 0o644): void {
    this.#add(path, S_IFREG | mode, Buffer.isBuffer(content) ? content : Buffer.from(content));
  }

  symlink(path: string, target: string): void {
    this.#add(path, S_IFLNK | 0o777, Buffer.from(target));
  }

  characterDevice(path: string, major: number, minor: number, mode = 0o600): void {
    this.#add(path, S_IFCHR | mode, Buffer.alloc(0), major, minor);
  }

  /** The archive, its trailer included. */
  finish(): Buffer {
    const parts: Buffer[] = [];
    let inode = 1;
    for (const [name, { mode, content, major, minor }] of [...this.#entries, TRAILER]) {
      const nameBytes = Buffer.from(`${name}\0`);
      const fields = [inode++, mode, 0, 0, 1, 0, content.length, 0, 0, major, minor, nameBytes.length, 0];
      const header = Buffer.from(`070701${fields.map((value) => value.toString(16).padStart(8, '0')).join('')}`);
      parts.push(header, nameBytes, padding(header.length + nameBytes.length), content, padding(content.length));
    }
    return Buffer.concat(parts);
  }

  #add(path: string, mode: number, content: Buffer, major = 0, minor = 0): void {
    const clean = path.replace(/^\/+/, '');
    const at = clean.lastIndexOf('/');
    if (at > 0) this.directory(clean.slice(0, at));
    this.#entries.set(clean, { mode, content, major, minor });
  }
}

const TRAILER: [string, Entry] = ['TRAILER!!!', { mode: 0, content: Buffer.alloc(0), major: 0, minor: 0 }];

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}
