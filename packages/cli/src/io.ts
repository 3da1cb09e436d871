import type { Readable, Writable } from 'node:stream'

/** What the command line uses of its process, so that tests can give their own. */
export interface Io {
  readonly stdin: Readable
  readonly stdout: Writable & { readonly isTTY?: boolean }
  readonly stderr: Writable & { readonly isTTY?: boolean; readonly columns?: number }
  /** Where driver packages are looked for from. */
  cwd(): string
  /** Process signals. */
  on(event: NodeJS.Signals, listener: () => void): unknown
  off(event: NodeJS.Signals, listener: () => void): unknown
}
