import type { Injection, RegisterChanges, Registers } from './registers.ts'

/** Which kinds of access to a page: any subset of read, write and execute. */
export type Access = 'none' | 'r' | 'w' | 'x' | 'rw' | 'rx' | 'wx' | 'rwx'

/**
 * The independent parts of a reply. Each is enabled by the capability `reply.<part>`; a reply without parts lets the
 * guest go on as if unwatched, and a part that is `false` is as good as absent. Open to augmentation.
 */
export interface ReplyParts {
  /** The write, access or instruction does not take effect; the guest goes on behind the instruction. */
  deny: boolean
  /** Register changes, in force before the vCPU executes anything more. */
  registers: RegisterChanges
  /** For a write to a control register or MSR: this value is written in place of the guest's. */
  value: bigint
  /** The vCPU goes on in this view. */
  view: number
  /**
   * The vCPU executes one instruction (in `view`, where one is given, and returns to its former view behind it), then
   * an intercept of kind `singlestep`, where one listens, receives an event.
   */
  step: boolean | { readonly view: number }
  /** The hypervisor emulates the instruction: with what the guest has in memory, these data, or these opcodes. */
  emulate: boolean | { readonly data: Uint8Array } | { readonly instruction: Uint8Array }
  /** The guest receives the exception that the event is about, as if it had been its own. */
  reinject: boolean
  /** The vCPU receives this before it goes on. */
  inject: Injection
}

/** Parts that fit every event that stops a vCPU. */
type AnyStop = 'registers' | 'view' | 'inject'

/**
 * The kinds of event: what is asked for (`request`), what an event tells (`event`), which reply parts fit (`parts`).
 * Each kind is enabled by the capability `events.<kind>`. Open to augmentation:
 *
 * @example
 * ```ts
 * declare module '@microvmi/core' {
 *   interface EventKinds {
 *     balloon: { request: { readonly from: number }; event: { readonly pages: number }; parts: never }
 *   }
 *   interface Capabilities {
 *     'events.balloon': import('@microvmi/core').EventSource
 *   }
 * }
 * ```
 */
export interface EventKinds {
  /** A write to a control register. CR3: a process switch. */
  cr: {
    request: {
      readonly register: 'cr0' | 'cr3' | 'cr4' | 'xcr0'
      /** Only when the value changes. Default true. */
      readonly onChange?: boolean
      /** Only when one of these bits changes. */
      readonly mask?: bigint
      /** The vCPU does not wait: less cost, no reply. Where the backend cannot, the event stops the vCPU all the same. */
      readonly asynchronous?: boolean
    }
    event: { readonly register: 'cr0' | 'cr3' | 'cr4' | 'xcr0'; readonly old: bigint; readonly new: bigint }
    parts: AnyStop | 'deny' | 'value'
  }
  /** A write to a model-specific register. */
  msr: {
    request: {
      /** The MSR's index, for example 0xc0000082 for LSTAR. */
      readonly msr: number
      /** Only when the value changes. Default true. */
      readonly onChange?: boolean
      readonly asynchronous?: boolean
    }
    /** `old` is undefined where the hypervisor does not tell it. */
    event: { readonly msr: number; readonly old: bigint | undefined; readonly new: bigint }
    parts: AnyStop | 'deny' | 'value'
  }
  /** Our breakpoint: reported before the instruction at the address is executed. Stepping over it is ours. */
  breakpoint: {
    request: BreakpointRequest
    /** `address` is virtual: the vCPU's rip. */
    event: { readonly address: bigint }
    parts: AnyStop | 'step' | 'emulate' | 'reinject'
  }
  /** The guest's own int3. Unanswered, the guest receives its #BP. */
  int3: {
    request: unknown
    /** `address` is that of the instruction, `length` its length in bytes (1, or 2 for `cd 03`), where known. */
    event: { readonly address: bigint; readonly length: number | undefined }
    parts: AnyStop | 'step' | 'emulate' | 'reinject' | 'deny'
  }
  /** An access to a few bytes at a virtual address, reported after the access. */
  watchpoint: {
    request: {
      readonly address: bigint
      /** Bytes: 1, 2, 4 or 8, and the address a multiple of it. */
      readonly length: 1 | 2 | 4 | 8
      readonly access: 'r' | 'w' | 'rw'
      /** Only in the address space of this CR3. */
      readonly addressSpace?: bigint
    }
    event: { readonly address: bigint; readonly access: 'r' | 'w' | 'rw' }
    parts: AnyStop | 'step'
  }
  /** An access to guest-physical pages, reported before the access. Ranges are widened to whole pages. */
  memory: {
    request: {
      readonly address: number
      readonly length: number
      readonly access: Exclude<Access, 'none'>
      /** Only in this view. */
      readonly view?: number
    }
    event: {
      /** Guest-physical address of the access. */
      readonly address: number
      /** Virtual address of the access, where the hypervisor tells it. */
      readonly virtualAddress: bigint | undefined
      readonly access: Exclude<Access, 'none'>
      readonly view: number | undefined
    }
    parts: AnyStop | 'deny' | 'step' | 'emulate'
  }
  /** One instruction was executed. */
  singlestep: {
    request: {
      /** Only this vCPU. Default: every one. */
      readonly vcpu?: number
      /** Only the steps that a reply's `step` asked for; the vCPU runs freely otherwise. */
      readonly onlyAsked?: boolean
    }
    /** `address` is that of the next instruction. */
    event: { readonly address: bigint }
    parts: AnyStop | 'step'
  }
  /** CPUID. Unanswered, it is executed; a reply that changes registers replaces its result. */
  cpuid: {
    request: {
      /** Only this leaf. */
      readonly leaf?: number
    }
    event: { readonly leaf: number; readonly subleaf: number; readonly length: number }
    parts: AnyStop
  }
  /** An access to GDTR, IDTR, LDTR or TR. */
  descriptor: {
    request: unknown
    event: { readonly table: 'gdt' | 'idt' | 'ldt' | 'tr'; readonly write: boolean }
    parts: AnyStop | 'deny' | 'emulate'
  }
  /** A debug exception of the guest. Unanswered, the guest receives its #DB. */
  debug: {
    request: unknown
    event: { readonly address: bigint; readonly dr6: bigint | undefined }
    parts: AnyStop | 'step' | 'reinject' | 'deny'
  }
  /** A call from the guest to its introspector. */
  hypercall: {
    request: unknown
    event: { readonly number: bigint | undefined }
    parts: AnyStop
  }
  /** A privileged call (SMC on ARM). */
  privcall: { request: unknown; event: { readonly address: bigint }; parts: AnyStop }
  /** An access to an I/O port. */
  io: {
    request: { readonly port?: number }
    event: { readonly port: number; readonly size: number; readonly direction: 'in' | 'out' }
    parts: AnyStop | 'deny' | 'emulate'
  }
  /** An interrupt or exception is delivered to the guest. */
  interrupt: {
    request: { readonly vector?: number }
    event: { readonly vector: number; readonly errorCode: number | undefined; readonly cr2: bigint | undefined }
    parts: AnyStop | 'deny' | 'reinject'
  }
  /** Something happened to the whole VM. Stops nothing. */
  lifecycle: {
    request: unknown
    event: { readonly change: LifecycleChange }
    parts: never
  }
}

/** What can happen to a whole VM. */
export type LifecycleChange =
  | 'paused'
  | 'resumed'
  | 'reset'
  | 'reboot'
  | 'shutdown'
  | 'crashed'
  | 'suspended'
  | 'migrating'

/** Where a breakpoint sits. */
export type BreakpointRequest = {
  /** Only in the address space of this CR3 (its page-frame bits are compared). */
  readonly addressSpace?: bigint
  /** `hardware` uses a debug register, `software` changes the guest's code; default: what the backend finds best. */
  readonly method?: 'hardware' | 'software'
} & ({ readonly address: bigint } | { readonly physicalAddress: number })

/** The name of an event kind. */
export type EventKind = keyof EventKinds

/** What `intercept` takes for these kinds. */
export type InterceptRequest<K extends EventKind = EventKind> = {
  [P in K]: { readonly kind: P } & EventKinds[P]['request']
}[K]

/** A reply made of these parts. */
export type Reply<Parts extends keyof ReplyParts = keyof ReplyParts> = {
  readonly [Part in Parts]?: ReplyParts[Part]
}

/** What every event has. */
export interface EventBase {
  readonly vcpu: number
  /** What waits for the answer. `none`: the event is a report, it takes no reply. */
  readonly stops: 'vcpu' | 'vm' | 'none'
  /** False where events of this sort can be missed, for example CR3 writes seen by breakpoints on known instructions. */
  readonly complete: boolean
  /**
   * The vCPU's registers where the hypervisor hands them over with the event, perhaps not all that `readRegisters`
   * tells; else `undefined`: read them.
   */
  readonly registers: Registers | undefined
  /** Whether the event has its answer. */
  readonly answered: boolean
  /**
   * Keeps the event, and what it stops, for a later `reply`. Without it, an event that has no answer when the loop
   * goes on (or the handler returns) proceeds.
   */
  hold(): void
}

/** An event of kind `K` that takes a reply made of `Parts`. */
export type VmEvent<K extends EventKind = EventKind, Parts extends keyof ReplyParts = keyof ReplyParts> = {
  [P in K]: EventBase & {
    readonly kind: P
    /**
     * Answers; without parts, the guest goes on as if unwatched.
     *
     * Throws `ALREADY_ANSWERED` the second time, `CLOSED` after the intercept ended, `UNSUPPORTED` for a part that
     * the backend lacks, `BAD_ARGUMENT` for a part with a bad value or an event that stops nothing.
     */
    reply(parts?: Reply<EventKinds[P]['parts'] & Parts>): void
  } & EventKinds[P]['event']
}[K]

/**
 * Armed events, as an async iterable, or bound to a handler. It is armed while it has a listener: from the first step
 * of its iteration, or from the call where a handler was given, until the loop ends or it is closed.
 */
export interface Intercept<Event> extends AsyncIterable<Event>, Disposable {
  /** Ends it: what waits proceeds, then it is disarmed. A loop over it ends. Harmless when repeated. */
  close(): void
  /** Ends it, as `close` does, once the signal is aborted. Returns the same intercept. */
  until(signal: AbortSignalLike): Intercept<Event>
  /** Settles when it has ended; rejects with what a handler threw, or why the VM went away. */
  readonly ended: Promise<void>
  /** How many reports (events that stop nothing) were dropped because the listener did not keep up. */
  readonly dropped: number
}

/** The part of the web's AbortSignal that is used, so that core needs no DOM types. */
export interface AbortSignalLike {
  readonly aborted: boolean
  readonly reason?: unknown
  addEventListener(type: 'abort', listener: () => void, options?: { once?: boolean }): void
  removeEventListener(type: 'abort', listener: () => void): void
}
