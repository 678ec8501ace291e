// Both layouts of a ring, for tests that are to hold on either.
import type { DriverSide, MockDriverOptions } from './driver-side.ts';
import { MockDriver } from './mock-driver.ts';
import { PackedMockDriver } from './packed-mock-driver.ts';

export type Layout = 'split' | 'packed';

export const LAYOUTS: readonly Layout[] = ['split', 'packed'];

export function mockDriver(layout: Layout, options: MockDriverOptions = {}): DriverSide {
  return layout === 'packed' ? new PackedMockDriver(options) : new MockDriver(options);
}
