// A matcher as a step of the test: from its call to its verdict, and what it printed when it failed, in the recorder
// of the machine that it was asked of.
import type { MatcherContext } from 'expect';
import { PciFunction } from '../../machine/pci-function.ts';
import { BareFunction } from '../../machine/bare-function.ts';
import { firstLine, type Recorder } from '../../recorder.ts';
import { currentTest } from '../current-test.ts';
import { machineOf } from '../scene.ts';
import type { MatcherResult } from './format.ts';

type Matcher<A extends unknown[]> = (this: MatcherContext, received: unknown, ...claim: A) => MatcherResult | Promise<MatcherResult>;

export function recorded<A extends unknown[], M extends Matcher<A>>(name: string, matcher: M & Matcher<A>): M {
  return function (this: MatcherContext, received: unknown, ...claim: A) {
    const end = recorderOf(received)?.begin('test', `expect ${this.isNot === true ? 'not ' : ''}${name}${textOf(claim)}`);
    const told = (result: MatcherResult): MatcherResult => {
      const holds = result.pass !== (this.isNot === true);
      end?.(holds ? undefined : result.message());
      if (!holds && result.witnesses !== undefined) currentTest()?.evidence.witnesses.push(result.witnesses);
      return result;
    };
    const failed = (error: unknown): never => {
      end?.(firstLine(error));
      throw error;
    };
    try {
      const result = matcher.call(this, received, ...claim);
      return result instanceof Promise ? result.then(told, failed) : told(result);
    } catch (error) {
      return failed(error);
    }
  } as M;
}

/** That of the machine of what was given; of an unplug's report, the test's. */
function recorderOf(received: unknown): Recorder | undefined {
  const machine = received instanceof PciFunction || received instanceof BareFunction ? received.machine : machineOf(received);
  return machine?.innards.trouble.recorder ?? currentTest()?.evidence.machines.at(-1)?.recorder;
}

function textOf(claim: readonly unknown[]): string {
  const [first] = claim;
  if (first === undefined) return '';
  return ` ${JSON.stringify(first, (_key, value: unknown) => (typeof value === 'bigint' || value instanceof RegExp ? String(value) : value))}`;
}
