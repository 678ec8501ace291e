// What the command line prints of these words.
import { jest } from '@jest/globals';
import { program } from '../../src/cli/program.ts';

export async function lspciOutput(words: readonly string[]): Promise<string> {
  let text = '';
  const written = jest.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    text += String(chunk);
    return true;
  });
  try {
    await program().parseAsync(words, { from: 'user' });
  } finally {
    written.mockRestore();
  }
  return text;
}
