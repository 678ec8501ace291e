// The public API for Jest: useMachine, and the matchers' types. Only inside Jest: it imports @jest/globals.
export { useMachine, type TestMachine, type UseMachineOptions } from './use-machine.ts';
export { useBare, type TestBareMachine, type UseBareOptions } from './use-bare.ts';
export type { BarClaim, CleanLogClaim, DeliveryClaim, DeliveryOptions, MappingClaim, MsixClaim, RootportMatchers, VectorClaim } from './matchers/index.ts';
export type { InterruptMark } from '../machine/interrupt-ledger.ts';
export { expectKernelReport, type WantedReport, type WantedReportOptions } from './kernel-reports.ts';
export { expectKtap } from './expect-ktap.ts';
