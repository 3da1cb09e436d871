import { randomBytes } from 'node:crypto'
import {
  closeSync,
  constants,
  fsyncSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  openSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { MicrovmiError } from '@microvmi/core'
import type { Sink } from './sink.ts'
import { BLOCK, runs, ZEROS } from './zeros.ts'

/** Only its owner may read a dump: it holds the guest's secrets. */
const MODE = 0o600

/**
 * A file that is written under a temporary name beside its own, and takes its name only when it is whole and on disk.
 */
export class FileSink implements Sink {
  readonly #path: string
  readonly #temporary: string
  readonly #sparse: boolean
  readonly #overwrite: boolean
  #fd: number | undefined
  #position = 0
  #written = 0
  #isFinished = false

  constructor(path: string, options: { readonly sparse: boolean; readonly overwrite: boolean }) {
    this.#path = path
    this.#sparse = options.sparse
    this.#overwrite = options.overwrite
    this.#checkDestination()
    this.#temporary = join(dirname(path), `.microvmi-${randomBytes(6).toString('hex')}.partial`)
    const { O_CREAT, O_EXCL, O_WRONLY } = constants
    this.#fd = storing(path, () => openSync(this.#temporary, O_CREAT | O_EXCL | O_WRONLY, MODE))
  }

  get written(): number {
    return this.#written
  }

  write(bytes: Uint8Array): void {
    const parts = this.#sparse ? runs(bytes) : [{ start: 0, end: bytes.length, isZero: false }]
    for (const { start, end, isZero } of parts) {
      if (isZero) this.#position += end - start
      else this.#put(bytes, start, end)
    }
  }

  writeZeros(length: number): void {
    if (this.#sparse) this.#position += length
    else for (let done = 0; done < length; done += BLOCK) this.#put(ZEROS, 0, Math.min(BLOCK, length - done))
  }

  finish(): void {
    storing(this.#path, () => {
      const fd = this.#open()
      ftruncateSync(fd, this.#position)
      fsyncSync(fd)
      closeSync(fd)
      this.#fd = undefined
      this.#takeName()
      syncDirectory(dirname(this.#path))
    })
    this.#isFinished = true
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
    if (!this.#isFinished) rmSync(this.#temporary, { force: true })
  }

  #put(bytes: Uint8Array, start: number, end: number): void {
    const fd = this.#open()
    storing(this.#path, () => {
      for (let at = start; at < end; ) {
        const length = writeSync(fd, bytes, at, end - at, this.#position)
        at += length
        this.#position += length
        this.#written += length
      }
    })
  }

  #open(): number {
    if (this.#fd === undefined) throw new MicrovmiError('CLOSED', `the dump to ${this.#path} has ended`)
    return this.#fd
  }

  #checkDestination(): void {
    if (this.#path === '' || /[/\\]$/.test(this.#path)) {
      throw new MicrovmiError('BAD_ARGUMENT', `'${this.#path}' names no file`)
    }
    const status = storing(this.#path, () => lstatSync(this.#path, { throwIfNoEntry: false }))
    if (!status) return
    if (status.isDirectory()) {
      throw new MicrovmiError('BAD_ARGUMENT', `${this.#path} is a directory: name a file in it`)
    }
    if (!status.isFile() && !status.isSymbolicLink()) {
      throw new MicrovmiError('BAD_ARGUMENT', `${this.#path} is no regular file: dump to a stream to write into it`)
    }
    if (!this.#overwrite) throw exists(this.#path)
  }

  /** A new name is taken with link(2), which never replaces a file that came meanwhile. */
  #takeName(): void {
    if (this.#overwrite) {
      renameSync(this.#temporary, this.#path)
      return
    }
    try {
      linkSync(this.#temporary, this.#path)
      rmSync(this.#temporary)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EEXIST') throw exists(this.#path)
      // File systems without hard links: a look must do.
      if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'ENOSYS') throw error
      if (lstatSync(this.#path, { throwIfNoEntry: false })) throw exists(this.#path)
      renameSync(this.#temporary, this.#path)
    }
  }
}

function exists(path: string): MicrovmiError {
  return new MicrovmiError('EXISTS', `${path} is there already: choose another name, or overwrite it (overwrite: true)`)
}

/** So that the new name, too, survives a power failure. Windows has no such call and needs none. */
function syncDirectory(directory: string): void {
  if (process.platform === 'win32') return
  const fd = openSync(directory, constants.O_RDONLY)
  try {
    fsyncSync(fd)
  } catch (error) {
    // File systems without a sync of directories.
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error
  } finally {
    closeSync(fd)
  }
}

/** Does `work`; what the file system refuses becomes a coded error that says what to do. */
function storing<T>(path: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (error instanceof MicrovmiError || typeof code !== 'string') throw error
    switch (code) {
      case 'EACCES':
      case 'EPERM':
        throw new MicrovmiError('DENIED', `no right to write ${path}`, { cause: error })
      case 'ERR_INVALID_ARG_VALUE':
      case 'ENAMETOOLONG':
        throw new MicrovmiError('BAD_ARGUMENT', `${JSON.stringify(path)} is no name that a file can have`, {
          cause: error,
        })
      case 'ENOENT':
      case 'ENOTDIR':
        throw new MicrovmiError('BAD_ARGUMENT', `${dirname(path)} is no directory: create it first`, { cause: error })
      case 'ENOSPC':
      case 'EDQUOT':
        throw new MicrovmiError('STORAGE', `no space is left for ${path}: nothing of the dump was kept`, {
          cause: error,
        })
      case 'EROFS':
        throw new MicrovmiError('STORAGE', `${path} is on a read-only file system`, { cause: error })
      default:
        throw new MicrovmiError('STORAGE', `${path} could not be written: ${message}`, { cause: error })
    }
  }
}
