import { execFileSync } from 'node:child_process';
import { expect, test } from '@jest/globals';
import { shellWord } from '../src/shell-word.ts';

test.each([['plain-1.2/x,y=z', 'plain-1.2/x,y=z'], ['two words', '\'two words\''], ['it\'s', '\'it\'\\\'\'s\''], ['', '\'\''], ['$HOME', '\'$HOME\'']])(
  '%j is the word %s, and a shell reads it back', (word, quoted) => {
    expect(shellWord(word)).toBe(quoted);
    expect(execFileSync('sh', ['-c', `printf %s ${shellWord(word)}`], { encoding: 'utf8' })).toBe(word);
  });
