// The thread of a WorkerBackend (worker-backend.ts): makes the device, serves it, tells the test's thread.
import { parentPort, workerData } from 'node:worker_threads';
import { RootportError } from '../errors.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { VhostUserBackend } from './backend.ts';
import type { WorkerOrder, WorkerReport } from './worker-backend.ts';

/** What a device has to say in its thread. */
export interface WorkerHost {
  readonly log: (line: string) => void;
  /** Send something (structuredClone) to the test's thread. */
  readonly tell: (what: unknown) => void;
}

/** What the module of a device exports as `make`. The device is closed (VirtioDevice.close) with the back end. */
export type DeviceMaker<Options> = (options: Options, host: WorkerHost) => VirtioDevice | Promise<VirtioDevice>;

const port = parentPort;
if (port === null) throw new Error('worker-main.js is the main module of a thread');
const say = (report: WorkerReport): void => port.postMessage(report);
const failed = (error: unknown): void => say({
  kind: 'error',
  error: error instanceof RootportError ? { name: error.name, summary: error.summary, hint: error.hint }
    : { name: 'Error', summary: String(error), hint: undefined },
});

const order = workerData as WorkerOrder;
try {
  const { make } = await import(order.module) as { make: DeviceMaker<unknown> };
  const log = (line: string): void => say({ kind: 'log', line });
  const device = await make(order.deviceOptions, { log, tell: (what) => say({ kind: 'told', what }) });
  const backend = VhostUserBackend.listen({ path: order.path, device, firedCounts: order.firedCounts, log, onError: failed });
  const end = async (): Promise<void> => {
    await backend.close();
    await device.close?.();
    port.close();
  };
  port.once('message', () => void end().catch(failed));
  say({ kind: 'listening' });
} catch (error) {
  failed(error);
  port.close();
}
