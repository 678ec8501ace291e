#!/usr/bin/env node
// The bin of the package: `rootport`. Commands are one file each; program.ts puts them together.
import { catchInterrupts } from './interrupts.ts';
import { main } from './program.ts';

catchInterrupts();
// `rootport cache | head`: nobody reads on.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(process.exitCode);
});
process.exitCode = await main(process.argv.slice(2));
