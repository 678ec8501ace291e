// Both layouts of a ring, for tests that are to hold on either: named, or the file's own (see packed-layout.ts).
import type { DriverSide, MockDriverOptions } from './driver-side.ts';
import { MockDriver } from './mock-driver.ts';
import { PackedMockDriver } from './packed-mock-driver.ts';

export type Layout = 'split' | 'packed';

export const LAYOUTS: readonly Layout[] = ['split', 'packed'];

/** What mockDriver() makes when it is not told. */
export const fileLayout: { value: Layout } = { value: 'split' };

export function mockDriver(layout: Layout = fileLayout.value, options: MockDriverOptions = {}): DriverSide {
  return layout === 'packed' ? new PackedMockDriver(options) : new MockDriver(options);
}
