// The public API for Jest: useMachine, and the matchers' types. Only inside Jest: it imports @jest/globals.
export { useMachine, type TestMachine, type UseMachineOptions } from './use-machine.ts';
