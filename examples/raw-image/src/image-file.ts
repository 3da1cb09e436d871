import { closeSync, constants, fstatSync, openSync, readSync, realpathSync, writeSync } from 'node:fs'
import { badArgument, MicrovmiError } from '@microvmi/core/driver'
import { failure, quoted, translate } from './failures.ts'

/** Bytes of one system call at most: node takes no length over 31 bits. */
const chunk = 2 ** 30

/** Opens an image. Throws `VM_NOT_FOUND`, `DENIED`, or `BAD_ARGUMENT` for what is not a regular file. */
export function openImage(path: string, writable: boolean): ImageFile {
  // Without O_NONBLOCK, which Windows does not have, opening a named pipe would wait for its other end.
  const flags = (writable ? constants.O_RDWR : constants.O_RDONLY) | (constants.O_NONBLOCK ?? 0)
  const descriptor = translate(path, 'opened', () => openSync(path, flags))
  try {
    const stat = translate(path, 'opened', () => fstatSync(descriptor))
    if (stat.isDirectory()) throw badArgument(`${quoted(path)} is a directory: name a file in it`)
    if (!stat.isFile()) throw badArgument(`${quoted(path)} is not a regular file: copy what it gives to one`)
    const real = translate(path, 'opened', () => realpathSync(path))
    return new ImageFile(descriptor, real, stat.size, writable)
  } catch (error) {
    closeSync(descriptor)
    throw error
  }
}

/** An open image file of the length that it had when it was opened. */
export class ImageFile {
  readonly path: string
  readonly length: number
  readonly writable: boolean
  readonly #descriptor: number
  #gone = false

  constructor(descriptor: number, path: string, length: number, writable: boolean) {
    this.#descriptor = descriptor
    this.path = path
    this.length = length
    this.writable = writable
  }

  /** Throws `VM_GONE` when the file has been cut short, now or at any time that was noticed. */
  check(): void {
    if (this.#gone) this.#fail()
    if (translate(this.path, 'read', () => fstatSync(this.#descriptor)).size < this.length) this.#fail()
  }

  /** Fills `into` from `offset`; the range is within `length`. */
  read(offset: number, into: Uint8Array): void {
    if (this.#gone) this.#fail()
    try {
      for (let done = 0; done < into.length; ) {
        const count = readSync(this.#descriptor, into, done, Math.min(chunk, into.length - done), offset + done)
        if (count === 0) this.#fail()
        done += count
      }
    } catch (error) {
      throw failure(this.path, 'read', error)
    }
  }

  /** Writes `from` at `offset`; the range is within `length`. */
  write(offset: number, from: Uint8Array): void {
    translate(this.path, 'written', () => {
      for (let done = 0; done < from.length; ) {
        done += writeSync(this.#descriptor, from, done, Math.min(chunk, from.length - done), offset + done)
      }
    })
  }

  close(): void {
    closeSync(this.#descriptor)
  }

  #fail(): never {
    this.#gone = true
    throw new MicrovmiError('VM_GONE', `${quoted(this.path)} was cut short while it was open: open it again`)
  }
}
