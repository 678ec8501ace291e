import { createPrivateKey, createPublicKey } from 'node:crypto';
import { expect, test } from '@jest/globals';
import ssh2 from 'ssh2';
import { generateClientKey, generateHostKey } from '../../src/image/ssh-keys.ts';

/** SSH strings (RFC 4251, section 5) until the bytes end. */
function strings(bytes: Buffer): Buffer[] {
  const found: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += 4 + bytes.readUInt32BE(at)) found.push(bytes.subarray(at + 4, at + 4 + bytes.readUInt32BE(at)));
  return found;
}

/** RFC 8410: an ed25519 seed as PKCS #8. */
function publicPoint(seed: Buffer): Buffer {
  const key = createPrivateKey({ key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]), format: 'der', type: 'pkcs8' });
  return Buffer.from(createPublicKey(key).export({ format: 'jwk' }).x ?? '', 'base64url');
}

test('dropbear\'s host key is a type, a seed and the point of that seed; the pinned key is the same point', () => {
  const { dropbear, publicBase64 } = generateHostKey();
  const [type, secret = Buffer.alloc(0), ...rest] = strings(dropbear);
  expect([type?.toString(), secret.length, rest.length]).toEqual(['ssh-ed25519', 64, 0]);
  expect(secret.subarray(32).equals(publicPoint(secret.subarray(0, 32)))).toBe(true);
  expect(strings(Buffer.from(publicBase64, 'base64')).map((one) => one.toString('hex')))
    .toEqual([Buffer.from('ssh-ed25519').toString('hex'), secret.subarray(32).toString('hex')]);
});

test('client keys are read by ssh2, and no two are alike', async () => {
  const keys = await Promise.all(Array.from({ length: 8 }, () => generateClientKey()));
  for (const { privateKey, publicBase64 } of keys) {
    const parsed = ssh2.utils.parseKey(privateKey);
    if (parsed instanceof Error) throw parsed;
    expect([parsed.type, parsed.getPublicSSH().toString('base64')]).toEqual(['ssh-rsa', publicBase64]);
    expect(parsed.verify('x', parsed.sign('x'))).toBe(true);
  }
  expect(new Set(keys.map((one) => one.publicBase64)).size).toBe(8);
});
