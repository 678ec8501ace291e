// When a plugged device fired: its witness listened to from the plug on, or from the first mark.
import { EventLog, type TimedEvent } from './event-log.ts';
import type { Plugged } from './plugged.ts';

const logs = new WeakMap<Plugged, EventLog<number>>();

/** Remember the times of its fires from now on; once, however often it is asked for. */
export function recordFires(plugged: Plugged): void {
  const { witness } = plugged.attachment;
  if (witness?.watch === undefined || logs.has(plugged)) return;
  const log = new EventLog<number>();
  logs.set(plugged, log);
  witness.watch((index) => log.add(performance.now(), index));
}

/** Fires that were recorded so far; a position for `firesSince`. */
export function firesRecorded(plugged: Plugged): number | undefined {
  return logs.get(plugged)?.count;
}

/** The fires from a position on, by the witness's own index; undefined when their times are not known. */
export function firesSince(plugged: Plugged, position: number | undefined): TimedEvent<number>[] | undefined {
  return position === undefined ? undefined : logs.get(plugged)?.since(position);
}

/** The fires after a time, as far as they are remembered. */
export function recentFires(plugged: Plugged, afterMs: number): TimedEvent<number>[] {
  return logs.get(plugged)?.after(afterMs) ?? [];
}
