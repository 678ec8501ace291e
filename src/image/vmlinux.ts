// The uncompressed ELF kernel out of a bzImage (Linux: Documentation/arch/x86/boot.rst, payload_offset).
// QEMU boots it through PVH, which spares the guest from decompressing itself.
import { gunzipSync } from 'node:zlib';
import { execa } from 'execa';
import { EnvironmentError, UsageError } from '../errors.ts';
import { isElf } from './elf.ts';

const DAMAGED_HINT = 'was the file copied whole? build or fetch it again';

/** Runs `xz` or `zstd` on standard input: from a package tree, or the host's. */
export type Decompressor = (tool: 'xz' | 'zstd') => [file: string, ...args: string[]];

/**
 * @param image bytes of a bzImage, or of an ELF vmlinux (returned as it is)
 * @throws UsageError when it is neither, or compressed in a way that is not known here
 */
export async function extractVmlinux(image: Buffer, decompressor: Decompressor): Promise<Buffer> {
  if (isElf(image)) return image;
  if (image.length < 0x260 || image.toString('latin1', 0x202, 0x206) !== 'HdrS') {
    throw new UsageError('the kernel image is neither a bzImage nor an ELF vmlinux', {
      hint: 'give arch/x86/boot/bzImage or vmlinux of the kernel tree',
    });
  }
  const setupSectors = image[0x1f1] || 4;
  const start = (setupSectors + 1) * 512 + image.readUInt32LE(0x248);
  // The payload's last four bytes are its uncompressed size, not part of the stream.
  const payload = image.subarray(start, start + image.readUInt32LE(0x24c) - 4);
  const vmlinux = await decompress(payload, decompressor);
  if (!isElf(vmlinux)) throw new UsageError('the bzImage\'s payload is not an ELF kernel');
  return vmlinux;
}

async function decompress(payload: Buffer, decompressor: Decompressor): Promise<Buffer> {
  const magic = payload.toString('hex', 0, 6);
  if (isElf(payload)) return payload;
  if (magic.startsWith('1f8b')) return gunzip(payload);
  if (magic === 'fd377a585a00') return pipe([...decompressor('xz'), '-dc', '--single-stream'], payload);
  if (magic.startsWith('28b52ffd')) return pipe([...decompressor('zstd'), '-dc'], payload);
  throw new UsageError(`the kernel is compressed in a way that is not known here (magic ${magic})`, {
    hint: 'give the uncompressed vmlinux of the kernel tree instead of the bzImage',
  });
}

function gunzip(payload: Buffer): Buffer {
  try {
    return gunzipSync(payload);
  } catch (cause) {
    throw new UsageError(`what shall be decompressed is damaged: ${(cause as Error).message}`, { cause, hint: DAMAGED_HINT });
  }
}

/** Decompressed bytes of a file that may be compressed as kernel modules are (.xz, .zst, .gz). */
export async function decompressFile(name: string, bytes: Buffer, decompressor: Decompressor): Promise<Buffer> {
  return /\.(xz|zst|gz)$/.test(name) ? decompress(bytes, decompressor) : bytes;
}

async function pipe(command: string[], input: Buffer): Promise<Buffer> {
  const [file = '', ...args] = command;
  const result = await execa(file, args, { input, encoding: 'buffer', maxBuffer: 2 ** 30, reject: false });
  if (result.failed && result.exitCode !== undefined) {
    const said = Buffer.from(result.stderr).toString().trim();
    throw new UsageError(`what shall be decompressed is damaged: ${said}`, { cause: result, hint: DAMAGED_HINT });
  }
  if (result.failed) {
    throw new EnvironmentError(`${file} could not decompress the kernel: ${result.shortMessage ?? ''}`, {
      cause: result, hint: 'install xz-utils and zstd, or give an uncompressed vmlinux',
    });
  }
  return Buffer.from(result.stdout);
}
