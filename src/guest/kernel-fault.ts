// A fatal kernel report as the error that ends every wait on the guest. Not here: file and line of the guilty place,
// which take the kernel's debug info (symbolise.ts); which reports a test wants (jest/kernel-reports.ts).
import { GuestFault } from '../errors.ts';
import { formatFrame } from './kernel-frames.ts';
import type { KernelReport } from './kernel-log.ts';

/** Names the guilty function first, where the report has one. */
export function faultOf({ title, guilty, lines }: KernelReport): GuestFault {
  return new GuestFault(title, [...(guilty === undefined ? [] : [`guilty: ${formatFrame(guilty)}`]), ...lines].join('\n'));
}
