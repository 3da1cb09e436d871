/**
 * Memory dumps, on core alone.
 *
 * @packageDocumentation
 */
export { type DumpableVm, type DumpOptions, type DumpProgress, type DumpResult, dumpMemory } from './dump.ts'
