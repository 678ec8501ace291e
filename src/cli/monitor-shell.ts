// QEMU's human monitor and the guest's console, for a machine whose guest answers no SSH: a line that is typed is a
// command of the monitor (`info registers`, `x`, `xp`, `gdbserver`), its answer goes to standard output, and what the
// guest prints to standard error. QEMU: docs/system/monitor.
import { createInterface } from 'node:readline';
import { RootportError } from '../errors.ts';
import type { Console } from '../qemu/console.ts';
import type { QmpClient } from '../qmp/client.ts';
import { EXIT } from './exit-codes.ts';

export interface MonitoredMachine {
  readonly qmp: QmpClient;
  readonly console: Console;
  readonly signal: AbortSignal;
}

/** Until the end of standard input, or `quit`. @throws the machine's reason when QEMU ends meanwhile */
export async function monitorShell({ qmp, console, signal }: MonitoredMachine): Promise<number> {
  const stop = console.onLine(({ text }) => process.stderr.write(`console: ${text}\n`));
  const lines = createInterface({ input: process.stdin, ...(process.stdin.isTTY ? { output: process.stdout, prompt: '(qemu) ' } : {}) });
  const lost = (): void => lines.close();
  signal.addEventListener('abort', lost, { once: true });
  try {
    lines.prompt();
    for await (const line of lines) {
      const command = line.trim();
      if (/^q(uit)?$/.test(command)) break;
      if (command !== '') process.stdout.write(await answered(qmp, command));
      lines.prompt();
    }
  } finally {
    stop();
    signal.removeEventListener('abort', lost);
    lines.close();
    process.stdin.destroy(); // whoever still holds its other end does not hold us
  }
  if (!qmp.failure) return EXIT.passed;
  throw signal.reason as Error;
}

/** A fault of the guest ends no monitor: QEMU lives. */
async function answered(qmp: QmpClient, command: string): Promise<string> {
  try {
    const text = await qmp.hmp(command, { afterAbort: true });
    return text === '' || text.endsWith('\n') ? text : `${text}\n`;
  } catch (error) {
    if (!(error instanceof RootportError)) throw error;
    return `${error.summary}\n`;
  }
}
