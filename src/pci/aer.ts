// Advanced Error Reporting: every bit of status, mask and severity by name, the header log, the root's registers.
// Source: PCIe Base 6.0, 7.8.4. The names are lspci's, so that a report and lspci read alike.
// Not here: what injects errors, what the guest logs of them.
import { bit, bitsSet, type BitNames, field } from './bit-names.ts';
import type { ConfigImage } from './config-image.ts';

/** Bits of the Uncorrectable Error Status, Mask and Severity registers (7.8.4.2 to 7.8.4.4). */
export const UNCORRECTABLE_ERRORS = {
  DLP: 4, SDES: 5, TLP: 12, FCP: 13, CmpltTO: 14, CmpltAbrt: 15, UnxCmplt: 16, RxOF: 17, MalfTLP: 18,
  ECRC: 19, UnsupReq: 20, ACSViol: 21, UncorrIntErr: 22, BlockedTLP: 23, AtomicOpBlocked: 24, TLPBlockedErr: 25,
  PoisonTLPBlocked: 26, DMWrReqBlocked: 27, IDECheck: 28, MisIDETLP: 29, PCRC_CHECK: 30, TLPXlatBlocked: 31,
} as const satisfies BitNames;

/** Bits of the Correctable Error Status and Mask registers (7.8.4.5, 7.8.4.6). */
export const CORRECTABLE_ERRORS = {
  RxErr: 0, BadTLP: 6, BadDLLP: 7, Rollover: 8, Timeout: 12, AdvNonFatalErr: 13, CorrIntErr: 14, HeaderOF: 15,
} as const satisfies BitNames;

export type UncorrectableError = keyof typeof UNCORRECTABLE_ERRORS;
export type CorrectableError = keyof typeof CORRECTABLE_ERRORS;

export interface AerCapability {
  /** Of the capability, in config space. */
  readonly offset: number;
  readonly uncorrectable: {
    readonly status: readonly UncorrectableError[];
    readonly mask: readonly UncorrectableError[];
    /** Those that are fatal when they happen. */
    readonly severity: readonly UncorrectableError[];
  };
  readonly correctable: { readonly status: readonly CorrectableError[]; readonly mask: readonly CorrectableError[] };
  /** Bit number of the first uncorrectable error; valid when its status bit is set. */
  readonly firstErrorPointer: number;
  /** The TLP header of that error, four words. */
  readonly headerLog: readonly number[];
}

/** The AER capability at `offset`, or undefined when its 0x2c bytes were not read. */
export function decodeAer(config: ConfigImage, offset: number): AerCapability | undefined {
  if (!config.has(offset, 0x2c)) return undefined;
  const uncorrectable = (at: number): UncorrectableError[] => bitsSet(config.u32(offset + at), UNCORRECTABLE_ERRORS);
  const correctable = (at: number): CorrectableError[] => bitsSet(config.u32(offset + at), CORRECTABLE_ERRORS);
  return {
    offset,
    uncorrectable: { status: uncorrectable(0x04), mask: uncorrectable(0x08), severity: uncorrectable(0x0c) },
    correctable: { status: correctable(0x10), mask: correctable(0x14) },
    firstErrorPointer: field(config.u32(offset + 0x18), 0, 5),
    headerLog: [0x1c, 0x20, 0x24, 0x28].map((at) => config.u32(offset + at)),
  };
}

/** Whether an uncorrectable error of this name would be fatal. */
export function isFatal(config: ConfigImage, offset: number, error: UncorrectableError): boolean {
  return bit(config.u32(offset + 0x0c), UNCORRECTABLE_ERRORS[error]);
}
