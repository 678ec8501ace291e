// A shell script that boots the same machine by hand: its QEMU's command line, with the descriptors that this process
// gave it made by the script's own, the console on the terminal, and an SSH key of its own. Pure.
import { shellWord } from '../shell-word.ts';

export interface ReproOptions {
  /** QEMU's program and all arguments, as they were. */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** What to boot; `append` is what one that came out of a snapshot gets, others keep their own. */
  readonly boot: { readonly kernel: string; readonly initramfs: string; readonly append: readonly string[] };
  /** What cannot be had by hand, for a comment: the back ends that lived in the test's process. */
  readonly lacks: readonly string[];
}

const HEAD = `set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
port=\${PORT:-2222}
key=
if command -v ssh-keygen >/dev/null; then
  ssh-keygen -q -t ed25519 -N '' -C rootport -f "$work/key"
  key=$(cut -d' ' -f2 "$work/key.pub")
  echo "ssh -i $work/key -p $port -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1" >&2
fi
echo "QMP: $work/qmp.sock; the console is here, Ctrl-A X ends it" >&2
`;

/** @returns a script for sh; `PORT=n` chooses where SSH is forwarded from. */
export function reproScript({ command, env, boot, lacks }: ReproOptions): string {
  const own = command[command.indexOf('-append') + 1];
  const given = command.includes('-append') && own !== undefined ? own.split(' ') : boot.append;
  const append = [...given.filter((word) => word !== 'quiet' && !/^rootport_(nonce|key)=/.test(word)), 'rootport_nonce=repro'].join(' ');
  const words: string[] = [];
  for (let at = 0; at < command.length; at += 1) {
    const [word = '', next = ''] = [command[at], command[at + 1]];
    const instead = replaced(word, next);
    words.push(...instead ?? [shellWord(word)]);
    if (instead !== undefined) at += 1;
  }
  return [
    '#!/bin/sh', '# Boots the same machine by hand (written by rootport for a test that failed).',
    ...lacks.map((one) => `# Not here: ${one.replaceAll('\n', ' ')}`),
    HEAD,
    ...Object.entries(env).map(([name, value]) => `export ${name}=${shellWord(value)}`),
    words.join(' '),
    `  -kernel ${shellWord(boot.kernel)} -initrd ${shellWord(boot.initramfs)}`,
    `  -append "${append.replace(/[\\$"`]/g, '\\$&')} rootport_key=$key" "$@"`,
  ].join('\n').replace(/\n {2}-/g, ' \\\n  -').concat('\n');
}

/** What stands for an argument and its value by hand; undefined: they stay as they are. */
function replaced(word: string, value: string): string[] | undefined {
  if (['-incoming', '-kernel', '-initrd', '-append'].includes(word)) return [];
  if (word === '-chardev' && value.startsWith('socket,id=console,')) return [word, 'stdio,id=console,mux=on,signal=off'];
  if (word === '-chardev' && value.startsWith('socket,id=qmp,')) return [word, '"socket,id=qmp,path=$work/qmp.sock,server=on,wait=off"'];
  if (word === '-object' && value.startsWith('memory-backend-file,id=ram,')) return [word, shellWord(ownMemory(value))];
  const forward = /hostfwd=tcp:127\.0\.0\.1:\d+-:22/;
  if (word === '-netdev' && forward.test(value)) return [word, `"${value.replace(forward, 'hostfwd=tcp:127.0.0.1:$port-:22')}"`];
  return undefined;
}

/** A memory file of QEMU's own: the test's was a descriptor. */
function ownMemory(object: string): string {
  return object.replace('memory-backend-file', 'memory-backend-memfd').replace(/,mem-path=[^,]*/, '');
}
