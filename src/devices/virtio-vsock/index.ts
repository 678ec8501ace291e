// A virtio socket device to plug: QEMU's vhost-user-vsock-pci with this process as the host. The test listens on ports
// that the guest connects to, and connects to ports that the guest listens on.
import { UsageError } from '../../errors.ts';
import { Arrivals } from '../arrivals.ts';
import type { WaitOptions } from '../arrivals.ts';
import { vhostUserDevice } from '../vhost-user-device.ts';
import type { BackEndFaults, VhostUserDevice } from '../vhost-user-device.ts';
import type { VsockConnection } from './connection.ts';
import { VirtioVsockDevice } from './device.ts';

export type { VsockConnection } from './connection.ts';

export interface VirtioVsockOptions extends BackEndFaults {
  /** The guest's context id: 3 (the default) to 0xfffffffe. */
  readonly guestCid?: number;
  /** Receive buffer of each connection: what the guest may send that nobody read. 256 KiB unless told, as Linux has. */
  readonly bufferBytes?: number;
}

/** A port of the host that the guest can connect to. */
export interface VsockListener {
  readonly port: number;
  /** The next connection that the guest made and this method has not given yet. */
  accept(options?: WaitOptions): Promise<VsockConnection>;
  /** Take no more; connections that nobody accepted are reset. */
  close(): void;
}

export interface VirtioVsock extends VhostUserDevice {
  readonly guestCid: number;
  /** Connections that are not over. */
  readonly connections: readonly VsockConnection[];
  /** What the driver did against the spec, the first thousand packets of it. */
  readonly refused: readonly string[];
  /** Listen on a port of the host (context id 2). UsageError when somebody does. Listeners outlive an unplug. */
  listen(port: number): VsockListener;
  /** Connect to a port that the guest listens on. ProtocolError when it refuses. */
  connect(port: number, options?: WaitOptions): Promise<VsockConnection>;
}

/** Throws UsageError for ids, sizes or faults that there are not. */
export function virtioVsock({ guestCid = 3, bufferBytes = 256 * 1024, ...faults }: VirtioVsockOptions = {}): VirtioVsock {
  if (!Number.isInteger(guestCid) || guestCid < 3 || guestCid > 0xffff_fffe) throw new UsageError(`virtioVsock: the guest's context id ${guestCid} is not from 3 to 0xfffffffe`);
  if (!Number.isInteger(bufferBytes) || bufferBytes < 1 || bufferBytes > 2 ** 30) throw new UsageError(`virtioVsock: a buffer of ${bufferBytes} bytes is not from 1 to 1 GiB`);
  const { core, device } = vhostUserDevice({
    kind: 'virtio-vsock',
    driver: 'vhost-user-vsock-pci',
    // rx, tx, the event queue that QEMU keeps, and config changes.
    properties: { vectors: 4 },
    guest: { modules: ['virtio_pci', 'vmw_vsock_virtio_transport'], ready: 'msi_irqs' },
    faults,
    make: (log) => new VirtioVsockDevice({ guestCid, bufferBytes, log }),
  });
  return {
    ...device,
    guestCid,
    refused: core.refused,
    get connections() {
      return core.connections;
    },
    listen(port) {
      checkPort(port);
      const taken = new Arrivals<VsockConnection>();
      const stop = core.listen(port, (connection) => taken.push(connection));
      return {
        port,
        accept: (options) => taken.next(`a connection of the guest to port ${port}`, options),
        close() {
          stop();
          for (const connection of taken.waiting) connection.destroy();
          taken.clear();
        },
      };
    },
    async connect(port, options) {
      checkPort(port);
      const connection = core.connect(port);
      try {
        await connection.opened(options);
      } catch (error) {
        connection.destroy();
        throw error;
      }
      return connection;
    },
  };
}

function checkPort(port: number): void {
  if (!Number.isInteger(port) || port < 0 || port > 0xffff_fffe) throw new UsageError(`virtioVsock: ${port} is not a port`, { hint: '0 to 0xfffffffe' });
}
