// The back end that the message cases talk to, and the count of what it may not keep.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { VhostUserBackend } from '../../src/vhost-user/index.ts';
import { ringFeatures } from '../../src/virtio/features.ts';
import { openDescriptors } from '../native/open-descriptors.ts';
import { EchoDevice } from '../vhost-user/echo-device.ts';
import type { CaseOutcome } from './case-outcome.ts';
import { closeFds, messageCase, openFds, type Target } from './message-case.ts';
import { Random } from './random.ts';

/** Cases between two looks at the descriptors. */
const LOOK_EVERY = 50;

export interface MessageTarget {
  run(seed: number): Promise<CaseOutcome>;
  /** @throws when something is open or mapped that was not at the start */
  close(): Promise<void>;
}

/** `packed`: of a device that offers packed rings, to a front end that likes them. */
export function messageTarget({ packed = false } = {}): MessageTarget {
  const atFirst = openDescriptors().length;
  const directory = mkdtempSync(join(tmpdir(), 'rootport-fuzz-'));
  const errors: Error[] = [];
  const device = new EchoDevice();
  if (packed) device.ringFeatures = ringFeatures({ packed: true, inOrder: true });
  const backend = VhostUserBackend.listen({ path: join(directory, 's'), device, onError: (error) => errors.push(error), drainTimeoutMs: 50 });
  const target: Target = { backend, errors, fds: openFds(), packed };
  let cases = 0, whileIdle = 0;
  const look = (): void => {
    const now = openDescriptors();
    whileIdle ||= now.length;
    if (now.length > whileIdle) throw new Error(`${now.length - whileIdle} descriptors leaked:\n${now.join('\n')}`);
    const kept = readFileSync('/proc/self/maps', 'utf8').match(/memfd:fuzz/g);
    if (kept !== null) throw new Error(`${kept.length} mappings of guest memory are kept`);
  };
  return {
    async run(seed) {
      const outcome = await messageCase(new Random(seed), target);
      cases += 1;
      if (cases === 1 || cases % LOOK_EVERY === 0) look();
      return outcome;
    },
    async close() {
      look();
      closeFds(target.fds);
      await backend.close();
      rmSync(directory, { recursive: true });
      const left = openDescriptors();
      if (left.length > atFirst) throw new Error(`${left.length - atFirst} descriptors are left:\n${left.join('\n')}`);
    },
  };
}
