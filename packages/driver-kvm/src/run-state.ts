import { MicrovmiError, type RunBackend, type RunState } from '@microvmi/core/driver'
import type { Gdb } from './gdb.ts'
import type { GdbStub } from './gdb-stub.ts'
import type { Qmp } from './qmp.ts'
import type { StopReply } from './stop-reply.ts'

/** What takes over when the VM stops or may go on, while a debugger is attached. */
export interface Debugging {
  /** The VM has stopped. True: an event holds it from now on, until `endHold`. */
  stopped(stop: StopReply): boolean
  /** Nothing holds the VM any more: lets it go on. False: an event holds it again. */
  proceed(): boolean
  /** Registers were written, perhaps those of the vCPU that has stopped. */
  wroteRegisters(): void
}

/**
 * Stopping and resuming. QEMU does not count who stopped a VM: it is remembered here.
 *
 * Without a debugger, by QMP. While one is attached every stop and resume goes through it: then the stub's own word
 * tells whether a breakpoint was hit just before the VM was stopped.
 */
export class QemuRunState implements RunBackend {
  readonly #qmp: Qmp
  readonly #stub: GdbStub
  #gdb: Gdb | undefined
  #debugging: Debugging | undefined
  /** A run packet is out (or somebody else has let the VM go on): the stub would take no packet. */
  #runs = false
  /** This session's pause, where the VM ran before. */
  #pausedByUs = false
  /** While a debugger is attached: somebody else has stopped the VM, or had before. */
  #pausedByOthers = false
  /** An event waits for its answer. */
  #isHeld = false
  #ownStops = 0
  #ownResumes = 0

  constructor(qmp: Qmp, stub: GdbStub) {
    this.#qmp = qmp
    this.#stub = stub
  }

  /** The debugger that is attached. */
  get gdb(): Gdb | undefined {
    return this.#gdb
  }

  pause(): void {
    if (this.#gdb) {
      this.#stop(this.#gdb)
      this.#pausedByUs = true
    } else {
      this.#pausedByUs = this.#asked() === 'running'
      if (this.#pausedByUs) this.#qmp.execute('stop')
    }
  }

  resume(): void {
    if (!this.#pausedByUs) return
    this.#pausedByUs = false
    if (this.#gdb) this.settle()
    else this.#qmp.execute('cont')
  }

  state(): RunState {
    if (this.#gdb && !this.#runs) return this.#mayRun ? 'running' : this.#pausedByOthers ? this.#asked() : 'paused'
    return this.#asked()
  }

  setState(state: RunState): void {
    if (!this.#gdb) {
      this.#qmp.execute(state === 'running' ? 'cont' : 'stop')
      return
    }
    if (state === 'paused') this.#stop(this.#gdb)
    this.#pausedByOthers = state === 'paused'
    this.settle()
  }

  /** Does `work` with all vCPUs stopped, and leaves them as they were. */
  whileStopped<T>(work: () => T): T {
    if (this.#gdb) {
      this.#stop(this.#gdb)
      try {
        return work()
      } finally {
        this.settle()
      }
    }
    if (this.#asked() === 'paused') return work()
    this.#qmp.execute('stop')
    try {
      return work()
    } finally {
      this.#qmp.execute('cont')
    }
  }

  /** Does `work` through the gdbstub, with all vCPUs stopped. */
  throughStub<T>(work: (gdb: Gdb) => T): T {
    return this.whileStopped(() => {
      if (this.#gdb) {
        this.#debugging?.wroteRegisters()
        return work(this.#gdb)
      }
      const gdb = this.#stub.connect()
      try {
        return work(gdb)
      } finally {
        this.#stub.end(gdb)
      }
    })
  }

  /** Attaches a debugger. The VM is stopped then, until `settle`. */
  attach(debugging: Debugging): Gdb {
    const wasRunning = this.#asked() === 'running'
    if (wasRunning) this.#qmp.execute('stop')
    try {
      this.#gdb = this.#stub.connect()
    } catch (error) {
      if (wasRunning) this.#qmp.execute('cont')
      throw error
    }
    this.#debugging = debugging
    this.#runs = false
    this.#isHeld = false
    this.#pausedByOthers = !wasRunning && !this.#pausedByUs
    return this.#gdb
  }

  /** Lets the debugger go; the VM goes on unless it is paused. */
  detach(): void {
    const gdb = this.#gdb
    if (!gdb) return
    try {
      this.#stop(gdb)
    } finally {
      this.#gdb = undefined
      this.#debugging = undefined
      this.#isHeld = false
      this.#stub.end(gdb)
    }
    if (this.#pausedByOthers) this.#pausedByUs = false
    else if (!this.#pausedByUs) this.#qmp.execute('cont')
    this.#pausedByOthers = false
  }

  /** The event that held the VM has its answer. */
  endHold(): void {
    this.#isHeld = false
  }

  /** Lets the VM go on if nothing holds it. */
  settle(): void {
    if (!this.#gdb || this.#runs || !this.#mayRun) return
    this.#isHeld = !(this.#debugging?.proceed() ?? true)
  }

  /** For `proceed`: all vCPUs run from now on. */
  go(): void {
    this.#runs = true
    this.#ownResumes += 1
    this.#gdb?.resume()
  }

  /** For `proceed`: one instruction of a vCPU. `undefined`: it waits for something, and was interrupted. */
  step(gdb: Gdb, vcpu: number, patience?: number): StopReply | undefined {
    this.#ownResumes += 1
    this.#ownStops += 1
    const stop = gdb.step(vcpu, patience) ?? gdb.interrupt()
    return stop.isTrap ? stop : undefined
  }

  /** Looks whether the VM has stopped since. */
  look(): void {
    const stop = this.#runs || this.#pausedByOthers ? this.#gdb?.poll() : undefined
    if (!stop) return
    this.#runs = false
    if (stop.isTrap) {
      this.#ownStops += 1
      this.#pausedByOthers = false
      this.#isHeld = this.#debugging?.stopped(stop) ?? false
      this.settle()
    } else {
      this.#pausedByOthers = true
    }
  }

  /** Whether a STOP or RESUME that QMP tells of is one of the debugger's doing. */
  isOwn(event: string): boolean {
    this.look()
    if (event === 'STOP' && this.#ownStops > 0) {
      this.#ownStops -= 1
      return true
    }
    if (event === 'RESUME' && this.#ownResumes > 0) {
      this.#ownResumes -= 1
      return true
    }
    if (event === 'RESUME' && this.#gdb && this.#pausedByOthers) {
      this.#pausedByOthers = false
      this.#runs = true
    }
    return false
  }

  get #mayRun(): boolean {
    return !this.#pausedByUs && !this.#pausedByOthers && !this.#isHeld
  }

  #stop(gdb: Gdb): void {
    if (this.#pausedByOthers && this.#asked() === 'running') {
      this.#pausedByOthers = false
      this.#runs = true
    }
    if (!this.#runs) return
    const stop = gdb.interrupt()
    this.#runs = false
    this.#ownStops += 1
    if (stop.isTrap) this.#isHeld = this.#debugging?.stopped(stop) ?? false
  }

  #asked(): RunState {
    const { running } = this.#qmp.query('query-status')
    if (typeof running === 'boolean') return running ? 'running' : 'paused'
    throw new MicrovmiError('PROTOCOL', 'QMP: query-status does not tell whether the VM runs')
  }
}
