// What can be on the bus: a target at an address, and the one that every test begins with, an EEPROM.
import { UsageError } from '../../errors.ts';

/** A chip on the bus. What it throws, or does not acknowledge, is a failed request for the guest. */
export interface I2cTarget {
  /** The controller wrote these bytes: none when it only asked whether somebody is there. False: not acknowledged. */
  write(bytes: Uint8Array): boolean;
  /** The controller reads: exactly so many bytes, or undefined when it is not acknowledged. */
  read(lengthBytes: number): Uint8Array | undefined;
}

export interface I2cEepromOptions {
  /** A power of two, 16 to 65,536; with more than 256 an address has two bytes, as from 24c32 on. */
  readonly sizeBytes?: number;
  /** A write wraps within its page. 8 unless told, as a 24c02 has. */
  readonly pageBytes?: number;
  /** Writes are not acknowledged. */
  readonly readOnly?: boolean;
}

export interface I2cEeprom extends I2cTarget {
  /** Its content, live. */
  readonly bytes: Uint8Array;
}

/** An EEPROM of the 24c family: 256 bytes of 0xff unless told. UsageError for sizes that there are not. */
export function i2cEeprom({ sizeBytes = 256, pageBytes = 8, readOnly = false }: I2cEepromOptions = {}): I2cEeprom {
  for (const [name, value, most] of [['sizeBytes', sizeBytes, 65_536], ['pageBytes', pageBytes, sizeBytes]] as const) {
    if (!Number.isInteger(value) || value < 1 || value > most || (value & (value - 1)) !== 0) throw new UsageError(`i2cEeprom: ${name} ${value} is not a power of two up to ${most}`);
  }
  const bytes = new Uint8Array(sizeBytes).fill(0xff);
  const addressBytes = sizeBytes > 256 ? 2 : 1;
  let pointer = 0;
  return {
    bytes,
    write(written) {
      if (written.length >= addressBytes) {
        pointer = (addressBytes === 1 ? written[0] : written[0] * 256 + written[1]) % sizeBytes;
      }
      const data = written.subarray(addressBytes);
      if (data.length > 0 && readOnly) return false;
      const page = pointer - (pointer % pageBytes);
      for (const byte of data) {
        bytes[pointer] = byte;
        pointer = page + ((pointer + 1) % pageBytes);
      }
      return true;
    },
    read(lengthBytes) {
      const out = new Uint8Array(lengthBytes);
      for (let i = 0; i < lengthBytes; i += 1) {
        out[i] = bytes[pointer];
        pointer = (pointer + 1) % sizeBytes;
      }
      return out;
    },
  };
}
