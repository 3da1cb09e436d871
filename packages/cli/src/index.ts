/**
 * The command line as a function, for programs that bring it along under a name of their own.
 *
 * @packageDocumentation
 */
export type { Io } from './io.ts'
export { run } from './run.ts'
