// What QEMU writes when it saves a machine, and reads when it loads one: over a socket between it and this process,
// so that its end is seen, and a copy needs no file. QEMU: docs/devel/migration, "unix" transport.
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

export interface StateReceiver extends AsyncDisposable {
  /** For `migrate`. */
  readonly uri: string;
  /** All of it, once QEMU has closed its end. */
  readonly bytes: Promise<Buffer>;
}

/** @param path where there is no file; at most 107 bytes (sockaddr_un) */
export async function receiveState(path: string): Promise<StateReceiver> {
  const server = createServer();
  const bytes = new Promise<Buffer>((resolve, reject) => {
    server.on('connection', (socket) => {
      const chunks: Buffer[] = [];
      socket.on('data', (chunk) => chunks.push(chunk));
      socket.on('end', () => resolve(Buffer.concat(chunks)));
      socket.on('error', reject);
    });
  });
  bytes.catch(() => undefined);
  server.listen(path);
  await once(server, 'listening');
  return { uri: uriOf(path), bytes, [Symbol.asyncDispose]: async () => { server.close(); } };
}

/** For `migrate-incoming`. */
export function uriOf(path: string): string {
  return `unix:${path}`;
}

/** Give it to a QEMU that listens there. A QEMU that does not want it says so over QMP, or exits. */
export function sendState(path: string, bytes: Buffer): void {
  const socket = connect(path);
  socket.on('error', () => undefined);
  socket.end(bytes);
}
