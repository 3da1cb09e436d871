/** Where the bytes of a dump go, in ascending order without gaps. */
export interface Sink {
  /** How many bytes were written so far, zeros that were left out not counted. */
  readonly written: number
  /** The next bytes, which the caller may reuse when the call, or its promise, has ended. */
  write(bytes: Uint8Array): void | Promise<void>
  /** The next `length` bytes are zero. */
  writeZeros(length: number): void | Promise<void>
  /** All was written: makes it last. */
  finish(): void | Promise<void>
  /** Undoes what was written, unless it is finished. Called on every path. */
  close(): void
}
