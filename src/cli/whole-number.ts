// An option's value that is a whole number, for commander.
import { InvalidArgumentError } from 'commander';

export const wholeNumber = wholeNumberOf(1, Number.MAX_SAFE_INTEGER);

export function wholeNumberOf(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most) {
      throw new InvalidArgumentError(`It is not a whole number from ${least}${most === Number.MAX_SAFE_INTEGER ? '' : ` to ${most}`}.`);
    }
    return value;
  };
}
