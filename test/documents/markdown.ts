// Fenced code blocks of a Markdown document, with the words of their opening line.
export interface CodeBlock {
  readonly language: string;
  /** The second word: the file that the block is. */
  readonly file: string | undefined;
  readonly text: string;
}

export function codeBlocks(markdown: string): CodeBlock[] {
  return [...markdown.matchAll(/^```([a-z]+)(?: (\S+))?\n([^]*?)^```$/gm)]
    .map(([, language = '', file, text = '']) => ({ language, file, text }));
}
