// Texts of a guest or a test, made fit for formats of lines and of XML.

/** What no line-based format, no XML 1.0 document (2.2, Char) and no terminal should get: control characters and lone surrogates. */
const UNFIT = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** With U+FFFD for each of them. */
export function plainText(text: string): string {
  return text.replace(/\r\n?/g, '\n').replace(UNFIT, '\ufffd');
}

/** In one line. */
export function oneLine(text: string): string {
  return plainText(text).replace(/[\n\t\u0085\u2028\u2029]+/g, ' ').trim();
}
