/**
 * A guest in memory that runs, and the driver `mock` that opens it: for the tests of apps, and for a first look.
 *
 * @packageDocumentation
 */
import { register } from '@microvmi/core/driver'
import { mock } from './driver.ts'

register(mock)

export { assemble, type Program } from './assembler.ts'
export type { MockCapability } from './capabilities.ts'
export { type MockOptions, mock } from './driver.ts'
export { createGuest, type Guest, type GuestProcess, type RunOptions } from './guest.ts'
export type { JournalEntry } from './journal.ts'
export type { GuestOptions, ProcessOptions } from './options.ts'
export type { Mapping } from './page-tables.ts'
export type { ProgramName } from './programs.ts'
