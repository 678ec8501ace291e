// ed25519 keys in the three shapes that are needed here. The guest's host key is made when its image is
// built, and the client pins it; a client key is made for each run and never stored.
import { generateKeyPairSync, randomBytes } from 'node:crypto';

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
  /** OpenSSH private key text, for ssh2 and for ssh(1). */
  readonly privateKey: string;
  readonly publicBase64: string;
}

/**
 * Written here and not by ssh2's generateKeyPairSync: one ed25519 key in some hundreds that it makes
 * (1.17) it cannot read back ("Malformed OpenSSH private key").
 */
export function generateClientKey(): ClientKey {
  const { wire, point, secret } = generateKey();
  const check = randomBytes(4);
  const section = Buffer.concat([check, check, sized(TYPE), sized(point), sized(secret), sized(Buffer.from('rootport'))]);
  const padding = Buffer.from(Array.from({ length: (8 - (section.length % 8)) % 8 }, (_, i) => i + 1));
  const none = sized(Buffer.from('none'));
  // OpenSSH: PROTOCOL.key, "openssh-key-v1".
  const body = Buffer.concat([
    Buffer.from('openssh-key-v1\0'), none, none, sized(Buffer.alloc(0)), uint32(1), sized(wire),
    sized(Buffer.concat([section, padding])),
  ]).toString('base64').replace(/.{70}/g, '$&\n').trimEnd();
  return {
    privateKey: `-----BEGIN OPENSSH PRIVATE KEY-----\n${body}\n-----END OPENSSH PRIVATE KEY-----\n`,
    publicBase64: wire.toString('base64'),
  };
}

const TYPE = Buffer.from('ssh-ed25519');

/** `wire`: the public key as SSH sends it (RFC 8709, section 4); `secret`: seed, then public point. */
function generateKey(): { wire: Buffer; point: Buffer; secret: Buffer } {
  const { d = '', x = '' } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });
  const point = Buffer.from(x, 'base64url');
  return { wire: Buffer.concat([sized(TYPE), sized(point)]), point, secret: Buffer.concat([Buffer.from(d, 'base64url'), point]) };
}

function sized(bytes: Buffer): Buffer {
  return Buffer.concat([uint32(bytes.length), bytes]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
