// The matchers by name, for expect.extend, and their types for both of Jest's `expect`s.
import { recorded } from './recorded.ts';
import { toBeMappedAt, type MappingClaim } from './to-be-mapped-at.ts';
import { toHaveBar, type BarClaim } from './to-have-bar.ts';
import { toHaveCleanLog, type CleanLogClaim } from './to-have-clean-log.ts';
import { toHaveDelivered, type DeliveryClaim, type DeliveryOptions, type VectorClaim } from './to-have-delivered.ts';
import { toHaveMsix, type MsixClaim } from './to-have-msix.ts';
import { toLeaveNothingBehind } from './to-leave-nothing-behind.ts';

export const matchers = {
  toBeMappedAt: recorded('toBeMappedAt', toBeMappedAt),
  toHaveBar: recorded('toHaveBar', toHaveBar),
  toHaveCleanLog: recorded('toHaveCleanLog', toHaveCleanLog),
  toHaveDelivered: recorded('toHaveDelivered', toHaveDelivered),
  toHaveMsix: recorded('toHaveMsix', toHaveMsix),
  toLeaveNothingBehind: recorded('toLeaveNothingBehind', toLeaveNothingBehind),
};
export type { BarClaim, CleanLogClaim, DeliveryClaim, DeliveryOptions, MappingClaim, MsixClaim, VectorClaim };

/** Each prints what every witness says, side by side, when it fails. */
export interface RootportMatchers<R> {
  /** A PciFunction has this BAR: config space, the guest's kernel and QEMU agree. */
  toHaveBar(claim: BarClaim): Promise<void>;
  /** A PciFunction's BAR is decoded at this address: config space, the guest's kernel, QEMU and its memory map agree. */
  toBeMappedAt(claim: MappingClaim): Promise<void>;
  /** A PciFunction has MSI-X of this shape: config space, the guest's lspci and QEMU's memory map agree. */
  toHaveMsix(claim: MsixClaim): Promise<void>;
  /**
   * A function's vectors were delivered, as device, VMM and guest count it, and its other vectors' counts add up.
   * Waits for it to come true.
   */
  toHaveDelivered(claim: DeliveryClaim): Promise<void>;
  toHaveDelivered(claims: readonly VectorClaim[], options?: DeliveryOptions): Promise<void>;
  /** An UnplugReport shows that nothing of the function is left. */
  toLeaveNothingBehind(): R;
  /** A machine's (or guest's) kernel has reported no WARN, BUG, oops and the like since the test began. */
  toHaveCleanLog(claim?: CleanLogClaim): Promise<void>;
}

declare module 'expect' {
  // eslint-disable-next-line @typescript-eslint/no-unused-vars, @typescript-eslint/no-empty-object-type -- as expect declares it
  interface Matchers<R extends void | Promise<void>, T = unknown> extends RootportMatchers<R> {}
}

declare global {
  // @types/jest, where a project has it.
  // eslint-disable-next-line @typescript-eslint/no-namespace -- as @types/jest declares it
  namespace jest {
    // eslint-disable-next-line @typescript-eslint/no-unused-vars, @typescript-eslint/no-empty-object-type -- as @types/jest declares it
    interface Matchers<R, T = {}> extends RootportMatchers<R> {}
  }
}
