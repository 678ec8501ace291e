// A cpio archive in the "newc" format, as the kernel unpacks it into the initramfs
// (Linux: Documentation/driver-api/early-userspace/buffer-format.rst). Writing it here needs no root:
// device nodes and owners are numbers in a header.

const S_IFDIR = 0o040000, S_IFREG = 0o100000, S_IFLNK = 0o120000, S_IFCHR = 0o020000;

export class CpioArchive {
  readonly #parts: Buffer[] = [];
  readonly #directories = new Set<string>();
  #inode = 1;

  directory(path: string, mode = 0o755): void {
    const clean = path.replace(/^\/+|\/+$/g, '');
    if (clean === '' || this.#directories.has(clean)) return;
    this.#parents(clean);
    this.#directories.add(clean);
    this.#entry(clean, S_IFDIR | mode, Buffer.alloc(0));
  }

  file(path: string, content: Buffer | string, mode = 0o644): void {
    this.#parents(path);
    this.#entry(path.replace(/^\/+/, ''), S_IFREG | mode, Buffer.isBuffer(content) ? content : Buffer.from(content));
  }

  symlink(path: string, target: string): void {
    this.#parents(path);
    this.#entry(path.replace(/^\/+/, ''), S_IFLNK | 0o777, Buffer.from(target));
  }

  characterDevice(path: string, major: number, minor: number, mode = 0o600): void {
    this.#parents(path);
    this.#entry(path.replace(/^\/+/, ''), S_IFCHR | mode, Buffer.alloc(0), major, minor);
  }

  /** The archive, its trailer included. */
  finish(): Buffer {
    this.#entry('TRAILER!!!', 0, Buffer.alloc(0));
    return Buffer.concat(this.#parts);
  }

  #parents(path: string): void {
    const at = path.replace(/^\/+/, '').lastIndexOf('/');
    if (at > 0) this.directory(path.replace(/^\/+/, '').slice(0, at));
  }

  #entry(name: string, mode: number, content: Buffer, major = 0, minor = 0): void {
    const nameBytes = Buffer.from(`${name}\0`);
    const fields = [this.#inode++, mode, 0, 0, 1, 0, content.length, 0, 0, major, minor, nameBytes.length, 0];
    const header = Buffer.from(`070701${fields.map((value) => value.toString(16).padStart(8, '0')).join('')}`);
    this.#parts.push(header, nameBytes, padding(header.length + nameBytes.length), content, padding(content.length));
  }
}

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}
