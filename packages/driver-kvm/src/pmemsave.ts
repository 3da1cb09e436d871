import { closeSync, openSync, readSync, rmSync } from 'node:fs'
import { MicrovmiError } from '@microvmi/core/driver'
import type { PrivateDirectory } from './private-directory.ts'
import type { Qmp } from './qmp.ts'

/** QEMU writes this much into a file at a time. */
const LIMIT = 16 * 2 ** 20

/** Guest memory by QMP's `pmemsave`, for hosts where QEMU's own memory may not be looked at: slow, and reads only. */
export class SavedMemory {
  readonly #qmp: Qmp
  readonly #directory: PrivateDirectory

  constructor(qmp: Qmp, directory: PrivateDirectory) {
    this.#qmp = qmp
    this.#directory = directory
  }

  /** Copies guest-physical memory, all of it RAM or ROM, to `into`. */
  read(address: number, into: Uint8Array): void {
    for (let done = 0; done < into.length; done += LIMIT) {
      this.#read(address + done, into.subarray(done, Math.min(done + LIMIT, into.length)))
    }
  }

  #read(address: number, into: Uint8Array): void {
    const filename = this.#directory.path('memory')
    try {
      this.#qmp.execute('pmemsave', { val: address, size: into.length, filename })
      const fd = openSync(filename, 'r')
      try {
        let done = 0
        while (done < into.length) {
          const length = readSync(fd, into, done, into.length - done, done)
          if (length === 0) throw new MicrovmiError('PROTOCOL', 'QEMU saved less memory than it was asked for')
          done += length
        }
      } finally {
        closeSync(fd)
      }
    } finally {
      rmSync(filename, { force: true })
    }
  }
}
