/** Zeros are looked for in blocks of this size: small enough to find many, large enough for memcmp to run at full speed. */
export const BLOCK = 65_536

/** A block of zeros, for comparing and for writing. Never written to. */
export const ZEROS: Buffer = Buffer.alloc(BLOCK)

/** A run of bytes: all of its blocks hold something, or all are zeros. */
export interface Run {
  readonly start: number
  readonly end: number
  readonly isZero: boolean
}

/** Splits bytes into runs, by blocks from the first byte on. */
export function* runs(bytes: Uint8Array): Generator<Run, void, undefined> {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  let start = 0
  let isZero = false
  for (let at = 0; at < view.length; at += BLOCK) {
    const end = Math.min(at + BLOCK, view.length)
    const isZeroBlock = ZEROS.compare(view, at, end, 0, end - at) === 0
    if (at > 0 && isZeroBlock !== isZero) {
      yield { start, end: at, isZero }
      start = at
    }
    isZero = isZeroBlock
  }
  if (view.length > start) yield { start, end: view.length, isZero }
}
