import type { VmBase } from '@microvmi/core'
import type { Behaviour } from './behaviour.ts'
import type { Fixture, Guest } from './fixture.ts'
import { type Pace, paceOf, within } from './pace.ts'
import { openAny } from './trial.ts'

const STARTUP = 10_000

/** A case's share in a session. */
export interface Share {
  /** None for a case that opens its own. */
  readonly vm: VmBase | undefined
  /** After the case. What has failed is not used again. */
  giveBack(failed: boolean): Promise<void>
}

/** The sessions that cases run in: one each, or one for many. */
export class Sessions {
  /** Milliseconds that bringing up the guest may take. */
  readonly startup: number
  readonly #fixture: Fixture
  readonly #pace: Pace
  /** The one that `reuse` keeps. */
  #kept: { readonly vm: VmBase; readonly guest: Guest } | undefined

  constructor(fixture: Fixture) {
    const { slowness = 1 } = fixture
    this.#fixture = fixture
    this.#pace = paceOf(slowness)
    this.startup = fixture.startup ?? STARTUP * slowness
  }

  /** The session for the next case. */
  async take(kind: Behaviour['session'], guest: Guest): Promise<Share> {
    if (kind === 'any' && this.#fixture.reuse === true) {
      const vm = await this.#keep(guest)
      return { vm, giveBack: async (failed) => (failed ? this.close() : undefined) }
    }
    // Where one session is all that there can be, this one needs the place of the one that is kept.
    await this.close()
    if (kind === 'none') return { vm: undefined, giveBack: async () => undefined }
    const vm = await this.#open(guest)
    return { vm, giveBack: () => this.#close(vm) }
  }

  /** Closes the one that is kept. */
  async close(): Promise<void> {
    const kept = this.#kept
    this.#kept = undefined
    if (kept) await this.#close(kept.vm)
  }

  async #keep(guest: Guest): Promise<VmBase> {
    const kept = this.#kept
    if (kept && kept.guest === guest && !kept.vm.closed) return kept.vm
    await this.close()
    const vm = await this.#open(guest)
    this.#kept = { vm, guest }
    return vm
  }

  #open(guest: Guest): Promise<VmBase> {
    const opened = openAny(this.#fixture.driver, { ...guest.options, vm: guest.vm })
    return within(opened, this.#pace.patience, `open() of ${guest.vm}`)
  }

  #close(vm: VmBase): Promise<void> {
    return within(vm.close(), this.#pace.patience, 'close()')
  }
}
