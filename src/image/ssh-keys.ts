// ed25519 keys in the three shapes that are needed here. The guest's host key is made when its image is
// built, and the client pins it; a client key is made for each run and never stored.
import { generateKeyPairSync } from 'node:crypto';
import ssh2 from 'ssh2';

export interface HostKey {
  /** dropbear's own private-key format: "ssh-ed25519", then seed and public key. */
  readonly dropbear: Buffer;
  /** The SSH wire form of the public key (RFC 8709, section 4), base64. */
  readonly publicBase64: string;
}

export function generateHostKey(): HostKey {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const seed = Buffer.from(privateKey.export({ format: 'jwk' }).d ?? '', 'base64url');
  const point = Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url');
  const type = Buffer.from('ssh-ed25519');
  return {
    dropbear: Buffer.concat([sized(type), sized(Buffer.concat([seed, point]))]),
    publicBase64: Buffer.concat([sized(type), sized(point)]).toString('base64'),
  };
}

export interface ClientKey {
  /** OpenSSH private key text, for ssh2 and for ssh(1). */
  readonly privateKey: string;
  readonly publicBase64: string;
}

export function generateClientKey(): ClientKey {
  const { private: privateKey, public: publicKey } = ssh2.utils.generateKeyPairSync('ed25519');
  return { privateKey, publicBase64: publicKey.split(' ')[1] ?? '' };
}

function sized(bytes: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}
