// Progress of long work. On a terminal one line that moves; elsewhere a plain line for each step.
import ora from 'ora';

export interface Progress {
  /** A step began; it is shown at once on a terminal. */
  start(text: string): void;
  /** How far it is, 0 to 1, and what it is at. */
  update(fraction: number | undefined, text: string): void;
  /** The step ended well. */
  succeed(text: string): void;
  fail(text: string): void;
  /** A line beside the steps. */
  note(text: string): void;
}

export const silentProgress: Progress = { start() {}, update() {}, succeed() {}, fail() {}, note() {} };

/** Progress on standard error: moving on a terminal, a plain line every 5 s of a step elsewhere. */
export function terminalProgress(stream: NodeJS.WriteStream = process.stderr): Progress {
  if (stream.isTTY !== true) return plainProgress(stream);
  const spinner = ora({ stream, discardStdin: false });
  let title = '';
  return {
    start(text) { title = text; spinner.start(text); },
    update(fraction, text) { spinner.text = line(title, fraction, text); },
    succeed(text) { spinner.succeed(text); },
    fail(text) { spinner.fail(text); },
    note(text) { if (spinner.isSpinning) spinner.text = text; else stream.write(`${text}\n`); },
  };
}

function plainProgress(stream: NodeJS.WritableStream): Progress {
  let title = '';
  let shownAt = 0;
  const write = (text: string): void => { stream.write(`rootport: ${text}\n`); };
  return {
    start(text) { title = text; shownAt = Date.now(); write(text); },
    update(fraction, text) {
      if (Date.now() - shownAt < 5000) return;
      shownAt = Date.now();
      write(line(title, fraction, text));
    },
    succeed: write,
    fail: write,
    note: write,
  };
}

function line(title: string, fraction: number | undefined, text: string): string {
  const percent = fraction === undefined ? '' : ` ${Math.floor(fraction * 100)} %`;
  return `${title}${percent}${text === '' ? '' : `: ${text}`}`;
}
