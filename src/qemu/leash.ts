// The leash: QEMU and its directory do not outlive this process, not even when it is killed with -9.
//
// QEMU itself gets PR_SET_PDEATHSIG through setpriv(1). Sockets and files are removed by a shell of its
// own session that reads from a pipe only we hold: when we die, however, the read ends. It also kills
// a QEMU that was forked but not yet leashed, known by the directory on its command line.
import { execa } from 'execa';

const SCRIPT = `
trap '' INT TERM HUP QUIT
read -r pid || pid=
[ -n "$pid" ] && read -r _
if [ -n "$pid" ]; then
  case $(tr '\\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") in *"\${1##*/}"*) kill -9 "$pid" 2>/dev/null ;; esac
fi
rm -rf -- "$1"
`;

export interface Leash {
  /** The process to be killed with us. */
  hold(pid: number): void;
  /** Kill what is held, remove the directory, and wait until that is done. */
  release(): Promise<void>;
}

/** Put `directory`, whose base name stands on the held process's command line, on the leash. */
export function leash(directory: string): Leash {
  const child = execa('sh', ['-c', SCRIPT, 'rootport-leash', directory], {
    stdin: 'pipe', stdout: 'ignore', stderr: 'ignore', detached: true, cleanup: false, reject: false, buffer: false,
  });
  return {
    hold(pid) { child.stdin.write(`${pid}\n`); },
    async release() {
      child.stdin.end();
      await child;
    },
  };
}

/** What to put before a command so that it dies with the thread that started it. */
export const PARENT_DEATH_PREFIX = ['setpriv', '--pdeathsig', 'KILL', '--'] as const;
