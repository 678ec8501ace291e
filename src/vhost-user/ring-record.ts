// What the recorder is told of a back end's rings: kicks, requests taken, completions, interrupts fired. In the hot
// path: requests and completions are read off the queue's own counts, at a kick and at an interrupt. Floods are
// counted together (Recorder.tally).
import type { Recorder, Tally } from '../recorder.ts';
import type { Virtqueue } from '../virtio/virtqueue.ts';

interface QueueTallies {
  readonly kick: Tally;
  readonly taken: Tally;
  readonly completed: Tally;
  readonly call: Tally;
  readonly fired: Tally;
  /** Whose counts were read last, and what they were. */
  of: Virtqueue | undefined;
  takenSeen: number;
  completedSeen: number;
}

export class RingRecord {
  readonly #recorder: Recorder;
  readonly #name: string;
  readonly #queues: QueueTallies[] = [];
  /** The clock as it was read last: twice a request is enough. */
  #nowMs = 0;

  /** @param name the device's id, before each text */
  constructor(recorder: Recorder, name: string) {
    this.#recorder = recorder;
    this.#name = name;
  }

  kicked(index: number, times: number): void {
    this.#at(index).kick.hit(times, (this.#nowMs = performance.now()));
  }

  /** The device has looked into the ring, or used some of it. */
  looked(index: number, queue: Virtqueue): void {
    const tallies = this.#at(index);
    const { taken, completed } = queue.counts;
    if (tallies.of !== queue) {
      tallies.of = queue;
      tallies.takenSeen = tallies.completedSeen = 0;
    }
    if (taken > tallies.takenSeen) tallies.taken.hit(taken - tallies.takenSeen, this.#nowMs);
    if (completed > tallies.completedSeen) tallies.completed.hit(completed - tallies.completedSeen, this.#nowMs);
    tallies.takenSeen = taken;
    tallies.completedSeen = completed;
  }

  /** The device fired the queue's interrupt. */
  fired(index: number): void {
    this.#at(index).fired.hit(1, (this.#nowMs = performance.now()));
  }

  /** The queue's call eventfd was written, just after it was fired. */
  called(index: number): void {
    this.#at(index).call.hit(1, this.#nowMs);
  }

  #at(index: number): QueueTallies {
    return (this.#queues[index] ??= this.#make(index));
  }

  #make(index: number): QueueTallies {
    const ring = (what: string): Tally => this.#recorder.tally('ring', `${this.#name} queue ${index}: ${what}`);
    return {
      kick: ring('kick'), taken: ring('request'), completed: ring('completion'), call: ring('call'),
      fired: this.#recorder.tally('interrupt', `${this.#name} queue ${index}: fired`),
      of: undefined, takenSeen: 0, completedSeen: 0,
    };
  }
}
