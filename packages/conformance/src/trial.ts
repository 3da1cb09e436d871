import { type Capability, demand, open, supports, type Vm, type VmBase } from '@microvmi/core'
import { Skipped } from './failure.ts'
import type { AnyVm, Guest, KnownMemory, TestedDriver } from './fixture.ts'
import { type Pace, within } from './pace.ts'
import { Progress } from './progress.ts'

/** What is undone after a case, whichever way it ends. */
export type Undo = () => void | Promise<void>

/** `open` takes drivers by what they promise; here any driver is opened, also with options that it must refuse. */
export function openAny(driver: TestedDriver, options: object): Promise<VmBase> {
  return (open as (driver: TestedDriver, options: object) => Promise<VmBase>)(driver, options)
}

/** `demand` takes names that are known when it is compiled; here any. */
export function demandAny(vm: VmBase, capability: Capability): void {
  demand(vm, capability as 'pause')
}

/** Core gives every Vm every member: those of capabilities that it lacks throw. */
export function anyVm(vm: VmBase): AnyVm {
  return vm as AnyVm
}

/** One run of one case: its session, and what it knows of the guest. */
export class Trial<C extends Capability> {
  readonly driver: TestedDriver
  readonly guest: Guest
  readonly pace: Pace
  readonly #session: VmBase | undefined
  readonly #undo: Undo[] = []
  readonly #pulse = { longest: 0 }

  constructor(driver: TestedDriver, guest: Guest, pace: Pace, session: VmBase | undefined) {
    this.driver = driver
    this.guest = guest
    this.pace = pace
    this.#session = session
  }

  /** The open VM. */
  get vm(): Vm<C> {
    if (!this.#session) throw new Error('this case has no session: it opens its own')
    // It was checked for the capabilities that the case needs before the case began.
    return this.#session as Vm<C>
  }

  /** The open VM, for what is chosen by its capabilities as they are found. */
  get anyVm(): AnyVm {
    return anyVm(this.vm)
  }

  /** Opens another session. It is closed after the case, where it is still open. */
  async open(options: object = {}): Promise<Vm<C>> {
    const vm = await openAny(this.driver, { ...this.guest.options, vm: this.guest.vm, ...options })
    this.afterwards(() => vm.close())
    return vm as Vm<C>
  }

  /** Has something undone after the case: the last one first. */
  afterwards(undo: Undo): void {
    this.#undo.push(undo)
  }

  /** Undoes everything, and throws what went wrong first. */
  async end(): Promise<void> {
    const failures: unknown[] = []
    for (const undo of this.#undo.reverse()) {
      try {
        await within(Promise.resolve(undo()), this.pace.patience, 'putting back what the case has changed')
      } catch (error) {
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  }

  /** Whether the guest goes on, seen through a session. Skips the case where the fixture cannot tell. */
  progress(vm: VmBase = this.vm): Progress {
    return new Progress(anyVm(vm), this.guest, this.pace, this.#pulse)
  }

  /** Lets a promise take as long as what must happen may. */
  within<T>(work: Promise<T>, what: string): Promise<T> {
    return within(work, this.pace.patience, what)
  }

  /** Stops the guest for the rest of the case. Returns whether its memory does not change by itself now. */
  still(): boolean {
    const vm: VmBase = this.vm
    if (this.guest.still) return true
    if (!supports(vm, 'pause')) return false
    const lease = vm.pause()
    this.afterwards(() => lease.end())
    return true
  }

  /** What the fixture knows of the guest's memory. */
  memory<Part extends keyof KnownMemory>(part: Part): NonNullable<KnownMemory[Part]> {
    return this.part(this.guest.memory?.[part], `Guest.memory.${part}`)
  }

  /** A part of the fixture, or a skipped case. */
  part<T>(value: T | undefined, name: string): NonNullable<T> {
    if (value === undefined || value === null) throw new Skipped(`the fixture leaves out ${name}`)
    return value
  }

  /** Skips the case. */
  skip(reason: string): never {
    throw new Skipped(reason)
  }
}
