import { existsSync, rmSync } from 'node:fs'
import { MicrovmiError } from '@microvmi/core/driver'
import { Gdb } from './gdb.ts'
import { isLeftover, type PrivateDirectory } from './private-directory.ts'
import { array, object, type Qmp } from './qmp.ts'

/** QEMU's gdbstub: the user's where there is one, else one of ours for as long as it is used. */
export class GdbStub {
  readonly #qmp: Qmp
  readonly #directory: PrivateDirectory
  readonly #timeout: number
  #ours: string | undefined

  constructor(qmp: Qmp, directory: PrivateDirectory, timeout: number) {
    this.#qmp = qmp
    this.#directory = directory
    this.#timeout = timeout
  }

  /** A connection to it. The VM is stopped, and stays so. `end` it, whatever happens. */
  connect(): Gdb {
    const path = this.#start()
    try {
      return new Gdb(path, this.#timeout)
    } catch (error) {
      this.#stop()
      throw error
    }
  }

  /** Whether the stub that is connected to is ours: then so is every breakpoint in it. */
  get isOurs(): boolean {
    return this.#ours !== undefined
  }

  /** Whether a process that was killed has left a stub, and perhaps breakpoints, in the VM. */
  get hasLeftover(): boolean {
    const present = this.#present()
    return present !== undefined && isLeftover(present.path)
  }

  /** Closes the connection; the VM stays as it is. */
  end(gdb: Gdb): void {
    gdb.close()
    this.#stop()
  }

  #start(): string {
    const present = this.#present()
    if (present !== undefined && !isLeftover(present.path)) {
      // A connection that waits behind another is taken when that one has gone, ended by then or not, and stops the VM.
      if (present.hasClient) throw new MicrovmiError('BUSY', `QEMU's gdbstub at ${present.path} has a client: end it`)
      return present.path
    }
    // QEMU makes no second one beside the first.
    if (present !== undefined) this.#qmp.human('gdbserver none')
    this.#ours = this.#directory.path('gdb')
    const answer = this.#qmp.human(`gdbserver unix:${this.#ours},server=on,wait=off`)
    if (existsSync(this.#ours)) return this.#ours
    this.#ours = undefined
    throw new MicrovmiError('HYPERVISOR', `QEMU starts no gdbstub: ${answer.trim()}`)
  }

  #stop(): void {
    if (this.#ours === undefined) return
    const path = this.#ours
    this.#ours = undefined
    this.#qmp.human('gdbserver none')
    rmSync(path, { force: true })
  }

  /** The socket of the stub that QEMU has now, and whether somebody is connected to it. */
  #present(): { path: string; hasClient: boolean } | undefined {
    const stub = array(this.#qmp.execute('query-chardev'), 'query-chardev')
      .map((chardev) => object(chardev, 'chardev'))
      .find(({ label }) => label === 'gdb')
    if (!stub) return undefined
    const filename = String(stub.filename)
    const path = /unix:([^,]+)/.exec(filename)?.[1]
    // QEMU, chardev/char-socket.c, tcp_chr_disconnect_locked().
    if (path !== undefined) return { path, hasClient: !filename.startsWith('disconnected:') }
    throw new MicrovmiError(
      'BUSY',
      `QEMU's gdbstub is at ${filename}, and microvmi needs one at a unix socket. Start QEMU with ` +
        '-gdb unix:PATH,server=on,wait=off, or with none',
    )
  }
}
