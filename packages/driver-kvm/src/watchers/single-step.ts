import type { EventKinds } from '@microvmi/core/driver'
import type { Sight, Stop, Watcher } from './watcher.ts'

/** `singlestep`: the steps themselves are taken in debug-events.ts. */
export class SingleStepWatcher implements Watcher {
  readonly #vcpu: number | undefined
  /** Whether it wants every instruction, not only those that a reply asks for. */
  readonly wantsEvery: boolean

  constructor({ vcpu, onlyAsked = false }: EventKinds['singlestep']['request']) {
    this.#vcpu = vcpu
    this.wantsEvery = !onlyAsked
  }

  arm(): void {}

  disarm(): void {}

  see({ vcpu, rip, step }: Stop): Sight<'singlestep'> | undefined {
    const isWanted = step === 'asked' || (step === 'every' && this.wantsEvery)
    if (!isWanted || (this.#vcpu !== undefined && this.#vcpu !== vcpu)) return undefined
    return { kind: 'singlestep', complete: true, fields: { address: rip } }
  }
}
