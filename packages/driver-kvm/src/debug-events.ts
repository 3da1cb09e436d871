import type { BackendEvent, EventSink, InterceptRequest, Reply } from '@microvmi/core/driver'
import { MicrovmiError } from '@microvmi/core/driver'
import type { Breakpoints } from './breakpoints.ts'
import type { CodeMemory } from './code-memory.ts'
import { GdbLayout } from './gdb-registers.ts'
import type { GdbStub } from './gdb-stub.ts'
import type { QemuRegisters } from './registers.ts'
import type { Debugging, QemuRunState } from './run-state.ts'
import { Stepping } from './stepping.ts'
import type { StopReply } from './stop-reply.ts'
import { SingleStepWatcher } from './watchers/single-step.ts'
import type { Debugger, Sight, Stop, Watcher } from './watchers/watcher.ts'
import { watcherFor } from './watchers/watcher-for.ts'

/** Milliseconds for steps that nobody hears of, until the event loop gets its turn. */
const TURNS_TIME = 10

/** The vCPU that has stopped last, and what it has to do before it may run. */
interface Standing {
  readonly vcpu: number
  /** Undefined where registers were written since. */
  rip: bigint | undefined
  /** The breakpoints at its rip had their chance: they are stepped over. */
  readonly isSeen: boolean
  isStepAsked: boolean
  isReinjected: boolean
}

/** An event that was not delivered yet. */
interface Draft {
  readonly stop: Stop
  readonly sight: Sight
  /** Who asked for it. */
  readonly armed: number[]
}

/** While the gdbstub is attached. */
interface Session {
  readonly debugging: Debugger
  readonly stepping: Stepping
}

/** What these events work with. */
export interface DebugParts {
  readonly run: QemuRunState
  readonly stub: GdbStub
  readonly registers: QemuRegisters
  readonly points: Breakpoints
  readonly code: CodeMemory
  readonly onKvm: boolean
  vcpuCount(): number
  /** The connection is of no use any more. */
  failed(error: MicrovmiError): void
}

/**
 * Events through QEMU's gdbstub, which is attached while something is armed. Each stops the whole VM, and there is one
 * stop at a time: what several vCPUs meet at once comes one after the other.
 */
export class DebugEvents implements Debugging {
  readonly #parts: DebugParts
  readonly #watchers = new Map<number, Watcher>()
  readonly #unanswered = new Set<BackendEvent>()
  #sink: EventSink | undefined
  #session: Session | undefined
  #standing: Standing | undefined
  #drafts: Draft[] = []
  #isScheduled = false

  constructor(parts: DebugParts) {
    this.#parts = parts
  }

  listen(sink: EventSink): void {
    this.#sink = sink
  }

  arm(request: InterceptRequest, armed: number): void {
    const watcher = watcherFor(request)
    const { debugging } = this.#session ?? this.#attach()
    try {
      this.#parts.run.whileStopped(() => {
        watcher.arm(debugging)
        this.#watchers.set(armed, watcher)
      })
    } finally {
      if (this.#watchers.size === 0) this.#detach()
    }
  }

  disarm(armed: number): void {
    const watcher = this.#watchers.get(armed)
    const session = this.#session
    if (!watcher || !session) return
    this.#watchers.delete(armed)
    try {
      this.#parts.run.whileStopped(() => {
        watcher.disarm(session.debugging)
        this.#drafts = this.#drafts
          .map((draft) => ({ ...draft, armed: draft.armed.filter((other) => other !== armed) }))
          .filter((draft) => draft.armed.length > 0)
        if (this.#drafts.length + this.#unanswered.size === 0) this.#parts.run.endHold()
        if (this.#watchers.size === 0) session.stepping.letInterruptsIn(false)
      })
    } finally {
      if (this.#watchers.size === 0) this.#detach()
    }
  }

  reply(event: BackendEvent, parts: Reply): void {
    const standing = this.#standing
    // What was let go otherwise, because its intercept has ended, has had its answer.
    if (!this.#unanswered.delete(event) || !standing) return
    try {
      if (parts.step) standing.isStepAsked = true
      if (parts.reinject && event.kind === 'breakpoint') standing.isReinjected = true
      if (parts.registers) this.#parts.registers.write(event.vcpu, parts.registers)
    } finally {
      if (this.#drafts.length + this.#unanswered.size === 0) {
        this.#parts.run.endHold()
        this.#parts.run.settle()
      }
    }
  }

  /** The guest was reset: its code is another one. */
  reset(): void {
    const debugging = this.#session?.debugging
    if (!debugging) return
    debugging.whileStopped(() => {
      for (const watcher of this.#watchers.values()) watcher.reset?.(debugging)
    })
  }

  /** Looks whether the VM has stopped, and delivers what that means. On the event loop only. */
  look(): void {
    this.#attempt(() => {
      this.#parts.run.look()
      this.#deliver()
    })
  }

  /** The VM has gone: there is nothing to put back. */
  abandon(): void {
    this.#session?.debugging.gdb.close()
    this.#session = undefined
    this.#drafts = []
    this.#unanswered.clear()
    this.#watchers.clear()
  }

  stopped(reply: StopReply): boolean {
    return this.#session !== undefined && this.#take(reply, 'none', this.#session)
  }

  wroteRegisters(): void {
    if (this.#standing) this.#standing.rip = undefined
  }

  proceed(): boolean {
    const session = this.#session
    if (!session) return true
    const standing = this.#standing
    this.#standing = undefined
    if (standing && this.#isStepped(standing, session)) return false
    if (this.#isSteppingAll) return this.#stepAll(session)
    session.stepping.letInterruptsIn(false)
    this.#parts.run.go()
    return true
  }

  /** The instruction that the vCPU that has stopped must do alone. True: it was one, and has become an event. */
  #isStepped({ vcpu, rip, isSeen, isStepAsked, isReinjected }: Standing, session: Session): boolean {
    const { debugging, stepping } = session
    const at = rip ?? ripOf(vcpu, debugging)
    if (!isStepAsked && !isReinjected && !(isSeen && debugging.points.at(at).length > 0)) return false
    const reply = isReinjected ? stepping.stepInt3(vcpu, at) : stepping.step(vcpu, at)
    if (!isStepAsked && !this.#isSteppingAll && !reply.watch) return false
    return this.#take(reply, isStepAsked ? 'asked' : 'every', session)
  }

  /** One instruction of each vCPU in turn, until one of them is an event. */
  #stepAll(session: Session): boolean {
    for (const end = performance.now() + TURNS_TIME; performance.now() < end; ) {
      const reply = session.stepping.stepNext()
      if (reply && this.#take(reply, 'every', session)) return false
    }
    setImmediate(() => {
      if (this.#session !== session || this.#drafts.length + this.#unanswered.size > 0) return
      this.#parts.run.endHold()
      this.#attempt(() => this.#parts.run.settle())
    })
    return false
  }

  get #isSteppingAll(): boolean {
    for (const watcher of this.#watchers.values()) {
      if (watcher instanceof SingleStepWatcher && watcher.wantsEvery) return true
    }
    return false
  }

  /** Makes events of a stop. False: nobody asked for one. */
  #take({ vcpu, watch }: StopReply, step: Stop['step'], { debugging }: Session): boolean {
    // The vCPU of the reply is the one that the stub has selected.
    const bytes = debugging.gdb.readAll()
    const rip = debugging.layout.word(bytes, 'rip')
    const stop: Stop = { vcpu, rip, bytes, watch, step }
    this.#standing = { vcpu, rip, isSeen: !watch, isStepAsked: false, isReinjected: false }
    const points = watch ? debugging.points.watching(watch.address) : debugging.points.at(rip)
    for (const [armed, watcher] of this.#watchers) {
      const isMet = watcher instanceof SingleStepWatcher || points.some(({ users }) => users.has(watcher))
      const sight = isMet ? watcher.see(stop, debugging) : undefined
      if (sight) this.#note(stop, sight, armed)
    }
    if (this.#drafts.length === 0) return false
    this.#schedule()
    return true
  }

  /** Equal events of one stop are one event, for all who asked for it. */
  #note(stop: Stop, sight: Sight, armed: number): void {
    const same = this.#drafts.find((draft) => isSame(draft.sight, sight))
    if (same) same.armed.push(armed)
    else this.#drafts.push({ stop, sight, armed: [armed] })
  }

  /** What was met within a call of core's is delivered after it. */
  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      this.#deliver()
    })
  }

  #deliver(): void {
    const layout = this.#session?.debugging.layout
    // Those of the next stop, which an answer may bring about, have to leave the event loop its turn.
    for (let count = this.#drafts.length; count > 0; count--) {
      const draft = this.#drafts.shift()
      if (!draft || !layout) return
      const { stop, sight, armed } = draft
      const registers = () => layout.registers(stop.bytes)
      const event = { ...sight, armed, vcpu: stop.vcpu, stops: 'vm', registers } as const
      this.#unanswered.add(event)
      this.#sink?.deliver(event)
    }
  }

  /** The VM is stopped then, until `settle`. */
  #attach(): Session {
    const { run, registers, points, code, onKvm, stub } = this.#parts
    const vcpuCount = this.#parts.vcpuCount()
    const gdb = run.attach(this)
    try {
      const layout = new GdbLayout(gdb.registers())
      // What is in a stub of ours is what a process that was killed has left.
      if (stub.isOurs) for (let vcpu = 0; vcpu < vcpuCount; vcpu++) gdb.removeAll(vcpu)
      const debugging: Debugger = {
        ...{ gdb, layout, points, code, onKvm, vcpuCount },
        registers: (vcpu) => registers.readStopped(vcpu),
        whileStopped: (work) => this.#attempt(() => run.whileStopped(work)),
      }
      gdb.watch(() => this.look())
      this.#session = { debugging, stepping: new Stepping(run, debugging) }
      return this.#session
    } catch (error) {
      run.detach()
      throw error
    }
  }

  #detach(): void {
    this.#session = undefined
    this.#standing = undefined
    this.#parts.run.detach()
  }

  /** For what happens on the event loop: there is nobody to throw at. */
  #attempt(work: () => void): void {
    try {
      work()
    } catch (error) {
      if (!(error instanceof MicrovmiError)) throw error
      this.#parts.failed(error)
    }
  }
}

function isSame(a: Sight, b: Sight): boolean {
  return a.kind === b.kind && Object.entries(a.fields).every(([name, value]) => value === Object(b.fields)[name])
}

function ripOf(vcpu: number, { gdb, layout }: Debugger): bigint {
  gdb.select(vcpu)
  return layout.word(gdb.readAll(), 'rip')
}
