import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export const mebibyte = 2 ** 20

/** Bytes that tell their places apart: each word of four is its own address. */
export function pattern(start: number, length: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(length))
  for (let at = 0; at < length; at += 4) view.setUint32(at, start + at, true)
  return new Uint8Array(view.buffer)
}

/** A directory of its own for image files. */
export function imageDirectory(): {
  readonly path: string
  make(name: string, bytes: Uint8Array): string
  remove(): void
} {
  const path = mkdtempSync(join(tmpdir(), 'raw-image-'))
  return {
    path,
    make(name, bytes) {
      const file = join(path, name)
      writeFileSync(file, bytes)
      return file
    },
    remove: () => rmSync(path, { recursive: true }),
  }
}
