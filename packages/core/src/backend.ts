import type { Capability, Detail, RunState } from './capability.ts'
import type { Access, EventKind, EventKinds, InterceptRequest, Reply } from './events.ts'
import type { MemoryLayout, MemoryPiece, PiecesOptions, ScatteredRead } from './memory.ts'
import type { Patches } from './patches.ts'
import type { Injection, RegisterChanges, RegisterName, Registers } from './registers.ts'

/**
 * What a driver implements for one open VM. Core builds the `Vm` that apps hold from it, and does there once, for
 * every driver: argument and address checks, `CLOSED`, capability errors, pause counting, the overlay of our own
 * breakpoints, default answers, disposal. So a backend may rely on what its methods document, and nothing of the
 * guest's is safe to rely on.
 *
 * All members are synchronous but `close` and `pieces`: the guest waits. No wait is without a deadline. A failing call
 * throws a `MicrovmiError`; when the VM has gone, every call throws `VM_GONE`.
 *
 * Capabilities and parts go together: a backend that lists `memory.write` has `memory.write`, and so on. The type
 * {@link BackendWith} demands it of what a driver promises.
 */
export interface Backend {
  readonly name: string
  /** The hypervisor's own identifier. */
  readonly id: string
  /** The hypervisor and its version. */
  readonly hypervisor: string
  /** May change while open: a getter is welcome. */
  readonly vcpuCount: number
  /** What this VM on this host can do: all that the driver promises and what it found of what is possible. */
  readonly capabilities: readonly Capability[]
  /** Why a capability is missing here, and what would help. */
  readonly lacks?: { readonly [Name in Capability]?: string }
  readonly details?: Readonly<Record<string, Detail>>
  readonly warnings?: readonly string[]

  readonly memory?: MemoryBackend
  readonly registers?: RegisterBackend
  readonly msr?: MsrBackend
  readonly running?: RunBackend
  readonly events?: EventBackend
  readonly views?: ViewBackend
  inject?(vcpu: number, injection: Injection): void
  /** Members for capabilities that core does not know: they become members of the Vm. */
  readonly extensions?: { readonly [Name in Capability]?: object }

  /**
   * Puts the guest back as it was, synchronously: breakpoints out, this session's pause ended. Core has answered and
   * disarmed everything before. Called once.
   */
  release(): void
  /** Lets go of every resource. Called once, after `release`. */
  close(): Promise<void>
}

/** `memory.*` */
export interface MemoryBackend {
  /**
   * Fills `into` (at least one byte; the range is within 52 bits) and returns its length; or, where a byte of the
   * range is not guest memory, returns the offset of the first such.
   */
  read(address: number, into: Uint8Array): number
  /**
   * 8 bytes as a little-endian number, where that is faster than `read`; `undefined` where it is not, or where a byte is
   * not guest memory: `read` is asked then.
   */
  readUint64?(address: number): bigint | undefined
  /**
   * Many reads, where that is faster than one by one. Calls `failed` with the index of each one that touches what is
   * not guest memory, and the first such address. Buffers may be empty: there is nothing to do for those. Without it,
   * core calls `read` for each.
   */
  readMany?(reads: readonly ScatteredRead[], failed: (index: number, address: number) => void): void
  /** Writes all of `from` and returns its length; or writes nothing and returns the offset as `read` does. */
  write?(address: number, from: Uint8Array): number
  layout?(): MemoryLayout
  /** Where there is a faster way for all of memory than `read`. Without it, core reads piece by piece. */
  pieces?(options: Required<Pick<PiecesOptions, 'pieceLength'>> & PiecesOptions): AsyncIterable<MemoryPiece>
  /** A window for the time of one callback, or the offset of the first byte that no window can show. */
  map?(address: number, length: number): Uint8Array | number
  /** After the callback. */
  unmap?(window: Uint8Array): void
  setAccess?(address: number, length: number, access: Access, view: number | undefined): void
  getAccess?(address: number, view: number | undefined): Access
  allocate?(): number
  free?(address: number): void
  /** What this backend has written into the guest for its own ends: hidden from reads, pieces and writes by core. */
  readonly patches?: Patches
}

/** `registers.*` */
export interface RegisterBackend {
  read(vcpu: number): Registers
  readonly writable?: ReadonlySet<RegisterName>
  /** All of `changes` are in `writable`. */
  write?(vcpu: number, changes: RegisterChanges): void
}

/** `msr.*` */
export interface MsrBackend {
  read(vcpu: number, index: number): bigint
  write?(vcpu: number, index: number, value: bigint): void
}

/** `pause` */
export interface RunBackend {
  /** Stops every vCPU; all are stopped on return. Never called twice without `resume` between. */
  pause(): void
  /** Ends this session's pause: the VM goes on unless someone else had paused it, or does. */
  resume(): void
  state(): RunState
  /** For longer than the session. Never called while this session's `pause` is on. */
  setState(state: RunState): void
}

/** An event on its way to core. */
export type BackendEvent<K extends EventKind = EventKind> = {
  [P in K]: {
    readonly kind: P
    /** The requests that this event answers to: what `arm` was given. */
    readonly armed: readonly number[]
    readonly vcpu: number
    readonly stops: 'vcpu' | 'vm' | 'none'
    readonly complete: boolean
    /** Where the hypervisor hands them over with the event. Called at most once, before the event's answer. */
    readonly registers?: (() => Registers) | undefined
    /** The kind's own fields. */
    readonly fields: EventKinds[P]['event']
  }
}[K]

/** Where a backend hands its events over. */
export interface EventSink {
  /**
   * Called from the event loop only, never within a call that core made: what arrives during one is queued and
   * delivered after it. Core calls `reply` for every event that stops something, within this call or later.
   */
  deliver(event: BackendEvent): void
  /** The VM has gone, or the connection is unusable: every intercept ends with this error, nothing is answered. */
  fail(error: Error): void
}

/** `events.*` */
export interface EventBackend {
  /** Called once, before anything is armed. */
  listen(sink: EventSink): void
  /**
   * Starts the events of one request under a number of core's. Equal requests are counted by core: it never arms the
   * same twice. Throws, with nothing armed, what cannot be: `UNSUPPORTED` for a filter, `BAD_ARGUMENT`, `BUSY` when
   * the hardware's four breakpoints are used up.
   */
  arm(request: InterceptRequest, armed: number): void
  /**
   * Ends them. Core has answered everything delivered; what has not been delivered yet is answered here so that the
   * guest proceeds, and not delivered any more. No vCPU is left waiting.
   */
  disarm(armed: number): void
  /**
   * Answers, in any order across vCPUs. Without parts: the guest goes on as if unwatched (our breakpoint stepped over,
   * its own int3 reinjected, the page let through once and guarded again, CPUID executed). An event is answered once:
   * a backend that cannot do what a part asks lets the guest proceed, then throws.
   */
  reply(event: BackendEvent, parts: Reply): void
}

/** `views` */
export interface ViewBackend {
  create(): number
  destroy(view: number): void
  switch(view: number, vcpu: number | undefined): void
  remap(view: number, gfn: number, to: number | undefined): void
}

/** Which part of a backend each of core's capabilities lives in. */
interface Parts {
  'memory.read': { readonly memory: MemoryBackend }
  'memory.write': { readonly memory: Having<MemoryBackend, 'write'> }
  'memory.regions': { readonly memory: Having<MemoryBackend, 'layout'> }
  'memory.map': { readonly memory: Having<MemoryBackend, 'map'> }
  'memory.access': { readonly memory: Having<MemoryBackend, 'setAccess' | 'getAccess'> }
  'memory.alloc': { readonly memory: Having<MemoryBackend, 'allocate' | 'free'> }
  'registers.read': { readonly registers: RegisterBackend }
  'registers.write': { readonly registers: Having<RegisterBackend, 'write' | 'writable'> }
  'msr.read': { readonly msr: MsrBackend }
  'msr.write': { readonly msr: Having<MsrBackend, 'write'> }
  pause: { readonly running: RunBackend }
  inject: Having<Backend, 'inject'>
  views: { readonly views: ViewBackend }
}

type Having<T, Keys extends keyof T> = { readonly [K in Keys]-?: NonNullable<T[K]> }

type PartOf<C extends Capability> = C extends keyof Parts
  ? Parts[C]
  : C extends `events.${string}`
    ? { readonly events: EventBackend }
    : unknown

type Intersection<C extends Capability> = (C extends unknown ? (part: PartOf<C>) => void : never) extends (
  part: infer I,
) => void
  ? I
  : unknown

/** A backend that has the parts for these capabilities: what a driver that promises them must open. */
export type BackendWith<C extends Capability> = Backend & ([C] extends [never] ? unknown : Intersection<C>)
