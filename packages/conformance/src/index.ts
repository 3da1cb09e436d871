/// <reference lib="esnext.disposable" preserve="true" />

/**
 * The contract between drivers and core as test cases, for any test runner.
 *
 * @packageDocumentation
 */
export type { ConformanceCase, Skipping } from './case.ts'
export { type Conformance, conformance } from './conformance.ts'
export { ConformanceError, Skipped } from './failure.ts'
export type {
  AnyVm,
  Fixture,
  Guest,
  KnownInjection,
  KnownMemory,
  KnownRegisters,
  Provocation,
  Provocations,
  ReplyShown,
  TestedDriver,
} from './fixture.ts'
export { type Runner, register } from './registration.ts'
