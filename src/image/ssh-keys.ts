// SSH keys in the shapes that are needed here. The guest's host key is made when its image is built, and the
// client pins it; a client key is made for each boot, and kept only with a snapshot of it.
import { generateKeyPair, generateKeyPairSync } from 'node:crypto';
import { promisify } from 'node:util';

export interface HostKey {
  /** dropbear's own private-key format: "ssh-ed25519", then seed and public key. */
  readonly dropbear: Buffer;
  /** The SSH wire form of the public key (RFC 8709, section 4), base64. */
  readonly publicBase64: string;
}

export function generateHostKey(): HostKey {
  const key = generateKey();
  return { dropbear: Buffer.concat([sized(TYPE), sized(key.secret)]), publicBase64: key.wire.toString('base64') };
}

export interface ClientKey {
  /** PEM, for ssh2 and for ssh(1). */
  readonly privateKey: string;
  /** The SSH wire form of the public key (RFC 4253, section 6.6), base64. */
  readonly publicBase64: string;
}

/**
 * RSA, for the guest's sake: it verifies each connection's signature, which takes 17 multiplications here and two
 * walks over a curve with ed25519. Under TCG that is 30 ms of a connection's 80.
 */
export async function generateClientKey(): Promise<ClientKey> {
  const { privateKey, publicKey } = await promisify(generateKeyPair)('rsa', { modulusLength: 2048 });
  const { n = '', e = '' } = publicKey.export({ format: 'jwk' });
  return {
    privateKey: privateKey.export({ type: 'pkcs1', format: 'pem' }).toString(),
    publicBase64: Buffer.concat([sized(Buffer.from('ssh-rsa')), mpint(e), mpint(n)]).toString('base64'),
  };
}

/** A positive number as SSH writes it (RFC 4251, section 5): not with its highest bit set. */
function mpint(base64url: string): Buffer {
  const bytes = Buffer.from(base64url, 'base64url');
  return sized((bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.from([0]), bytes]) : bytes);
}

const TYPE = Buffer.from('ssh-ed25519');

/** `wire`: the public key as SSH sends it (RFC 8709, section 4); `secret`: seed, then public point. */
function generateKey(): { wire: Buffer; secret: Buffer } {
  const { d = '', x = '' } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });
  const point = Buffer.from(x, 'base64url');
  return { wire: Buffer.concat([sized(TYPE), sized(point)]), secret: Buffer.concat([Buffer.from(d, 'base64url'), point]) };
}

function sized(bytes: Buffer): Buffer {
  return Buffer.concat([uint32(bytes.length), bytes]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
