import type {
  Capability,
  Driver,
  EventKind,
  Injection,
  InterceptRequest,
  RegisterChanges,
  RegisterName,
  ReplyParts,
  Vm,
  VmEvent,
} from '@microvmi/core'
import type { Backend, OpenRequest } from '@microvmi/core/driver'

/** Any driver, whatever it promises and whichever options it has. */
export interface TestedDriver extends Omit<Driver, 'open' | 'options'> {
  readonly options: object
  open(request: OpenRequest<object>): Promise<Backend>
}

/** An open VM with every member: those of capabilities that it lacks throw `UNSUPPORTED`. */
export type AnyVm = Vm<Capability>

/** What the suite has to know of a driver to test it. */
export interface Fixture {
  readonly driver: TestedDriver
  /**
   * Brings the guest up, where it is not, and says what is known of it. Called before every case: return the same
   * guest while it lives, or a fresh one each time. The cases that make it vanish come last.
   */
  guest(): Guest | Promise<Guest>
  /** Called after every case, once its sessions are closed. */
  after?(guest: Guest): void | Promise<void>
  /**
   * How many times longer than on a fast machine everything may take. Default 1: what must happen has 5 seconds, and
   * what must not is looked out for during 0.1 seconds.
   */
  readonly slowness?: number
  /** Milliseconds that `guest` may take. Default 10 seconds times `slowness`. */
  readonly startup?: number
  /** Opening is expensive: keep one session for all cases that leave it open. Default false. */
  readonly reuse?: boolean
}

/**
 * A guest, as the fixture knows it from elsewhere than from the driver under test. Every part that is left out skips
 * the cases that need it, with a reason that names the part.
 */
export interface Guest {
  /** What `open` takes as `vm`. */
  readonly vm: string
  /** The driver's own open options, and `timeout` where 5 seconds do not fit. */
  readonly options?: object
  /** False where `list` cannot know this VM, for example because it is a file anywhere. Default true. */
  readonly listed?: boolean
  /** Whether a second session can be opened beside the first, or is refused with `BUSY`. */
  readonly sessions?: 'several' | 'one'
  readonly vcpuCount?: number
  /** The guest does not run at all: a saved state, an image. Default false. */
  readonly still?: boolean
  readonly memory?: KnownMemory
  readonly registers?: KnownRegisters
  /** A model-specific register that may be written while the guest is paused, and a value for it. It is restored. */
  readonly msr?: { readonly index: number; readonly value: bigint }
  /** A number that changes all the time while the guest runs, for example a counter in its memory. */
  progress?(vm: AnyVm): number | bigint | Promise<number | bigint>
  /**
   * The same for one vCPU, where the guest counts what each one does: then a single vCPU that is left standing is
   * found. `undefined` for a vCPU that does nothing by itself.
   */
  progressOf?(vm: AnyVm, vcpu: number): number | bigint | undefined | Promise<number | bigint | undefined>
  /** How events come about, by kind. */
  readonly provoke?: Provocations
  readonly injection?: KnownInjection
  /** Remaps a page in a view of its own, and throws unless the guest sees the other page. */
  remap?(vm: AnyVm): void | Promise<void>
  /** Ends the VM, or the hypervisor's process, under an open session. */
  vanish?(): void | Promise<void>
}

/** Guest-physical memory whose contents are known. */
export interface KnownMemory {
  /**
   * What the guest has and does not change. At least one piece of a page or more, with bytes that tell their places
   * apart; best, one goes across a page's edge.
   */
  readonly known: readonly { readonly address: number; readonly bytes: Uint8Array }[]
  /** The first address after a range of RAM where nothing follows. */
  readonly end?: number
  /** A range that is not guest memory, of at least a page. */
  readonly hole?: { readonly start: number; readonly length: number }
  /**
   * What the guest neither uses nor changes, page-aligned, at least two pages for all cases. What is written here is
   * restored.
   */
  readonly scratch?: { readonly address: number; readonly length: number }
}

/** What is known of the guest's registers. */
export interface KnownRegisters {
  /** Registers that this driver cannot give: they must be `undefined`. */
  readonly absent?: readonly RegisterName[]
  /** What a vCPU's registers hold, from elsewhere. Called while the VM is paused, where the driver can pause. */
  known?(vcpu: number): RegisterChanges | Promise<RegisterChanges>
  /**
   * Values that may be written to vCPU 0 while it is paused, beyond the general registers. They are restored before
   * it goes on.
   */
  readonly writable?: RegisterChanges
}

/** An exception, interrupt or NMI that the guest takes without harm. */
export interface KnownInjection {
  readonly vcpu: number
  readonly injection: Injection
  /** How many of them the guest has taken. */
  count(vm: AnyVm): number | bigint | Promise<number | bigint>
}

/** How events of one kind come about. */
export interface Provocation<K extends EventKind = EventKind> {
  /** What to intercept. */
  readonly request: InterceptRequest<K>
  /**
   * Asks the guest for at least one more such event, without waiting for it: the guest may be standing still in the
   * event before. It is not called again until it has returned, or its promise has settled. Leave it out where the
   * guest does it all the time of its own accord.
   */
  provoke?(vm: AnyVm): void | Promise<void>
  /** Throws unless the event is what was provoked. */
  check?(event: VmEvent<K>): void
  /** Requests for what never happens in this guest, for example in the address space of no process: filters. */
  readonly never?: readonly InterceptRequest<K>[]
  /** The guest does it on each of its vCPUs, independently. Default false. */
  readonly everyVcpu?: boolean
  /** For a breakpoint: the guest-physical address of its instruction. */
  readonly physicalAddress?: number
  /**
   * Replies that show. Each answers the event, which is held, with the part that it stands for, and throws unless the
   * effect is seen. The intercept stays armed meanwhile: further events proceed.
   */
  readonly replies?: { readonly [Part in keyof ReplyParts]?: ReplyShown<K> }
}

/** Answers an event with one part of a reply, and throws unless its effect is seen. */
export type ReplyShown<K extends EventKind = EventKind> = {
  // A method's type: what is written for one kind stands among those of all kinds.
  show(event: VmEvent<K>, vm: AnyVm): void | Promise<void>
}['show']

/** How events of each kind come about: in one way, or in several (a hardware and a software breakpoint). */
export type Provocations = {
  readonly [K in EventKind]?: Provocation<K> | readonly [Provocation<K>, ...Provocation<K>[]]
}
