// A QMP server for tests, over a real Unix socket in this process: it says what the test tells it to.
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Received {
  readonly execute: string;
  readonly arguments?: Record<string, unknown>;
  readonly id: number;
}

export const GREETING = {
  QMP: { version: { qemu: { micro: 22, minor: 2, major: 7 }, package: 'Debian 1:7.2' }, capabilities: ['oob'] },
};

/** Two ends of one Unix socket connection, and how to remove both. */
export async function socketPair(): Promise<{ near: Socket; far: Socket; remove(): Promise<void> }> {
  const directory = await mkdtemp(join(tmpdir(), 'qmp-'));
  const server = createServer();
  server.listen(join(directory, 's'));
  await once(server, 'listening');
  const near = connect(join(directory, 's'));
  const [[far]] = (await Promise.all([once(server, 'connection'), once(near, 'connect')])) as [[Socket], unknown];
  server.close();
  far.on('error', () => undefined);
  const remove = async (): Promise<void> => {
    near.destroy();
    far.destroy();
    await rm(directory, { recursive: true });
  };
  return { near, far, remove };
}

export class ScriptedPeer {
  readonly received: Received[] = [];
  readonly #far: Socket;
  readonly #answer: (command: Received, peer: ScriptedPeer) => void;
  #text = '';

  /** `answer` is called for every command but qmp_capabilities, which is accepted at once. */
  constructor(far: Socket, answer: (command: Received, peer: ScriptedPeer) => void) {
    this.#far = far;
    this.#answer = answer;
    far.on('data', (chunk: Buffer) => this.#read(chunk.toString('utf8')));
  }

  say(...messages: object[]): void {
    this.raw(messages.map((message) => `${JSON.stringify(message)}\r\n`).join(''));
  }

  raw(text: string | Uint8Array): void {
    this.#far.write(text);
  }

  end(): void {
    this.#far.destroy();
  }

  #read(text: string): void {
    const lines = (this.#text + text).split('\n');
    this.#text = lines.pop() ?? '';
    for (const line of lines) {
      const command = JSON.parse(line) as Received;
      this.received.push(command);
      if (command.execute === 'qmp_capabilities') this.say({ return: {}, id: command.id });
      else this.#answer(command, this);
    }
  }
}
