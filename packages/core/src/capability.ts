import { MicrovmiError } from './errors.ts'
import type { EventKind, Intercept, InterceptRequest, Reply, ReplyParts, VmEvent } from './events.ts'
import { type Explaining, explainLack } from './explain.ts'
import type {
  MemoryAccess,
  MemoryAllocation,
  MemoryMapping,
  MemoryReading,
  MemoryRegions,
  MemoryWriting,
} from './memory.ts'
import type { Injection, RegisterChanges, RegisterName, Registers } from './registers.ts'

/**
 * What a driver may be able to do, by name, and the members that each adds to the Vm. Open to augmentation: a driver
 * can bring a capability of its own.
 *
 * @example
 * ```ts
 * declare module '@microvmi/core' {
 *   interface Capabilities {
 *     'acme.screenshot': { screenshot(): Uint8Array }
 *   }
 * }
 * ```
 */
export interface Capabilities {
  'memory.read': { readonly memory: MemoryReading }
  'memory.write': { readonly memory: MemoryWriting }
  'memory.regions': { readonly memory: MemoryRegions }
  'memory.map': { readonly memory: MemoryMapping }
  'memory.access': { readonly memory: MemoryAccess }
  'memory.alloc': { readonly memory: MemoryAllocation }
  'registers.read': RegisterReading
  'registers.write': RegisterWriting
  'msr.read': MsrReading
  'msr.write': MsrWriting
  pause: Pausing
  inject: Injecting
  views: { readonly views: Views }
  'events.cr': EventSource
  'events.msr': EventSource
  'events.breakpoint': EventSource
  'events.int3': EventSource
  'events.watchpoint': EventSource
  'events.memory': EventSource
  'events.singlestep': EventSource
  'events.cpuid': EventSource
  'events.descriptor': EventSource
  'events.debug': EventSource
  'events.hypercall': EventSource
  'events.privcall': EventSource
  'events.io': EventSource
  'events.interrupt': EventSource
  'events.lifecycle': EventSource
  'reply.deny': unknown
  'reply.registers': unknown
  'reply.value': unknown
  'reply.view': unknown
  'reply.step': unknown
  'reply.emulate': unknown
  'reply.reinject': unknown
  'reply.inject': unknown
}

/** The name of a capability. */
export type Capability = keyof Capabilities

/** `registers.read` */
export interface RegisterReading {
  /**
   * The registers of one vCPU. A running VM is stopped for the moment that it takes, where the hypervisor needs that.
   *
   * @param vcpu 0 to `vcpuCount - 1`; else `BAD_ARGUMENT`
   */
  readRegisters(vcpu: number): Registers
}

/** `registers.write` */
export interface RegisterWriting {
  /** The registers that `writeRegisters` takes here. */
  readonly writableRegisters: ReadonlySet<RegisterName>
  /**
   * Changes some registers of one vCPU. What was written reads back, also where the hypervisor applies it later.
   * Throws `UNSUPPORTED`, before anything is written, for one that is not in `writableRegisters`.
   */
  writeRegisters(vcpu: number, changes: RegisterChanges): void
}

/** `msr.read` */
export interface MsrReading {
  /** A model-specific register by its index (32 bits). Throws `UNSUPPORTED` for one that the backend does not give. */
  readMsr(vcpu: number, index: number): bigint
}

/** `msr.write` */
export interface MsrWriting {
  /** Sets a model-specific register. */
  writeMsr(vcpu: number, index: number, value: bigint): void
}

/** Whether a VM's vCPUs run. */
export type RunState = 'running' | 'paused'

/** `pause` */
export interface Pausing {
  /**
   * Stops every vCPU (or finds it held by an event) until the lease ends. Leases are counted: the VM goes on, if it
   * ran before, when the last one has ended.
   *
   * @example
   * ```ts
   * import type { Vm } from '@microvmi/core'
   *
   * function snapshot(vm: Vm<'pause' | 'registers.read'>) {
   *   const pause = vm.pause() // or: using pause = vm.pause()
   *   try {
   *     return vm.readRegisters(0)
   *   } finally {
   *     pause.end()
   *   }
   * }
   * ```
   */
  pause(): PauseLease
  /** Whether the VM runs now, whoever paused it. */
  runState(): RunState
  /**
   * Pauses or resumes for longer than this process lives: close leaves it. Throws `BUSY` while a pause lease of this
   * Vm is held.
   */
  setRunState(state: RunState): void
}

/** A share in the VM's being paused. */
export interface PauseLease extends Disposable {
  /** Ends this share, and no other. Harmless when repeated. */
  end(): void
}

/** `inject` */
export interface Injecting {
  /** Delivers an exception, interrupt or NMI to a vCPU when it next runs. */
  inject(vcpu: number, injection: Injection): void
}

/** `views`: other guest-physical mappings (Xen's altp2m, EPT views). View 0 is the guest's own. */
export interface Views {
  /** A new view, equal to view 0. Returns its number. */
  create(): number
  /** Destroys a view; vCPUs in it go back to view 0. */
  destroy(view: number): void
  /** Puts the whole VM, or one vCPU where the host allows, in a view. */
  switch(view: number, vcpu?: number): void
  /** Lets a page of a view show another page's contents; without `to`, its own again. Both are frame numbers. */
  remap(view: number, gfn: number, to?: number): void
}

/** `events.<kind>` */
export interface EventSource {
  /**
   * Asks for events. Iterate over the result: each event holds what it stops until its reply, at the latest until the
   * loop goes on. Or give a handler, which is called within the event's delivery and may return the reply: the least
   * delay.
   *
   * An intercept holds for the whole VM, also for vCPUs that come later and after a reset.
   *
   * Throws `UNSUPPORTED` for a kind or filter that the backend lacks, `BAD_ARGUMENT` for a malformed request.
   *
   * @example
   * ```ts
   * import type { Vm } from '@microvmi/core'
   *
   * async function watch(vm: Vm<'events.cr'>) {
   *   for await (const event of vm.intercept({ kind: 'cr', register: 'cr3' })) {
   *     console.log(`vcpu ${event.vcpu}: ${event.old.toString(16)} -> ${event.new.toString(16)}`)
   *   }
   * }
   * ```
   */
  intercept<This extends VmBase, const R extends InterceptRequest<KindsOf<This>>>(
    this: This,
    ...what: R[]
  ): Intercept<EventOf<This, R['kind']>>
  intercept<
    This extends VmBase,
    const R extends InterceptRequest<KindsOf<This>>,
    const Answer extends Reply<PartsOf<This>> | undefined | void,
  >(this: This, what: R | readonly R[], handler: (event: EventOf<This, R['kind']>) => Answer): Intercept<never>
}

declare const promised: unique symbol

/** Carries, in the type alone, which capabilities a Vm is known to have. */
export interface Promises<C extends Capability> {
  readonly [promised]?: { readonly [K in C]: true }
}

type PromisedBy<V> = V extends { readonly [promised]?: infer P } ? keyof NonNullable<P> : never

/** The event kinds that a Vm's type promises. */
export type KindsOf<V> =
  PromisedBy<V> extends infer P ? (P extends `events.${infer K extends EventKind}` ? K : never) : never

/** The reply parts that a Vm's type promises. */
export type PartsOf<V> =
  PromisedBy<V> extends infer P ? (P extends `reply.${infer R extends keyof ReplyParts}` ? R : never) : never

/** The events of kinds `K` on a Vm of type `V`. */
export type EventOf<V, K extends EventKind> = VmEvent<K, PartsOf<V>>

/** A fact about a VM or about how it is reached. */
export type Detail = string | number | boolean

/** What is known of an open VM without asking it. */
export interface VmInfo {
  /** The driver's scheme, for example `kvm`. */
  readonly driver: string
  /** The hypervisor and its version, as it names itself. */
  readonly hypervisor: string
  /** How the VM is reached: which way to its memory was chosen, and the like. */
  readonly details: Readonly<Record<string, Detail>>
  /** What the user should know: a predecessor's leftovers that were cleaned, a slower way that had to do. */
  readonly warnings: readonly string[]
}

/** What every Vm has, whatever its capabilities. */
export interface VmBase extends AsyncDisposable {
  readonly name: string
  /** The hypervisor's own identifier: a UUID, domid or pid. */
  readonly id: string
  /** Number of vCPUs now; they are numbered from 0. */
  readonly vcpuCount: number
  readonly info: VmInfo
  readonly capabilities: ReadonlySet<Capability>
  /** Whether it was closed. Every other call then throws `CLOSED`. */
  readonly closed: boolean
  /**
   * Undoes, synchronously, what this Vm does to the guest: waiting events proceed, intercepts end, breakpoints are
   * taken out, pauses end. For exit and signal handlers. The Vm is closed afterwards.
   */
  release(): void
  /** `release`, then lets go of all resources. Harmless when repeated. */
  close(): Promise<void>
}

type Intersection<C extends Capability> = { [K in C]: (members: Capabilities[K]) => void }[C] extends (
  members: infer I,
) => void
  ? I
  : never

/** An open virtual machine with (at least) these capabilities. */
export type Vm<C extends Capability = never> = VmBase & ([C] extends [never] ? unknown : Promises<C> & Intersection<C>)

type IsUnion<T, U = T> = T extends unknown ? ([U] extends [T] ? false : true) : never

/** Refuses lists whose members are not each one known name: narrowing by them would promise too much. */
export type Literals<T extends readonly Capability[]> = number extends T['length']
  ? never
  : { [I in keyof T]: IsUnion<T[I]> extends true ? never : T[I] }

/** The names in a list that was written out; none for one whose length is known at run time only. */
export type NamesIn<T extends readonly Capability[]> = number extends T['length'] ? never : T[number]

/**
 * Whether the VM has all of these capabilities; narrows its type.
 *
 * @example
 * ```ts
 * import { supports, type Vm } from '@microvmi/core'
 *
 * function pauseIfPossible(vm: Vm<'memory.read'>) {
 *   return supports(vm, 'pause') ? vm.pause() : undefined
 * }
 * ```
 */
export function supports<V extends VmBase, const T extends readonly Capability[]>(
  vm: V,
  ...capabilities: T & Literals<T>
): vm is V & Vm<T[number]> {
  return capabilities.every((capability) => vm.capabilities.has(capability))
}

/** Like `supports`, but throws `UNSUPPORTED`, with the reason, for the first capability that the VM lacks. */
export function demand<V extends VmBase, const T extends readonly Capability[]>(
  vm: V,
  ...capabilities: T & Literals<T>
): asserts vm is V & Vm<T[number]> {
  for (const capability of capabilities) {
    if (vm.capabilities.has(capability)) continue
    const explained = (vm as Explaining)[explainLack]?.(capability)
    throw explained ?? new MicrovmiError('UNSUPPORTED', `${vm.name} lacks ${capability}`)
  }
}
