import type { BackendEvent, InterceptRequest } from '@microvmi/core/driver'
import type { FdpClient } from './client.ts'
import type { FdpRunState } from './run-state.ts'

type StepRequest = Extract<InterceptRequest, { kind: 'singlestep' }>

/**
 * `singlestep`: the whole VM stands still, and its vCPUs are stepped in turn, one instruction for each answer. The
 * server has no breakpoint in force during a step: breakpoints do not hit while an intercept of this kind is armed.
 */
export class SingleSteps {
  readonly #client: FdpClient
  readonly #run: FdpRunState
  readonly #requests = new Map<number, StepRequest>()
  #isHolding = false
  #isWaiting = false
  #turn = 0

  constructor(client: FdpClient, run: FdpRunState) {
    this.#client = client
    this.#run = run
  }

  get isArmed(): boolean {
    return this.#requests.size > 0
  }

  arm(request: StepRequest, armed: number): void {
    // Steps that replies ask for there are none of.
    if (!request.onlyAsked) this.#hold()
    this.#requests.set(armed, request)
  }

  disarm(armed: number): void {
    this.#requests.delete(armed)
    if (![...this.#requests.values()].some(({ onlyAsked }) => !onlyAsked)) this.#letGo()
  }

  /** The event of the next step; undefined while the last one has no answer, or none is wanted. */
  next(): BackendEvent | undefined {
    if (!this.#isHolding || this.#isWaiting) return undefined
    const count = this.#client.vcpuCount()
    for (let tries = 0; tries < count; tries++) {
      const vcpu = this.#turn % count
      this.#turn += 1
      const armed = [...this.#requests]
        .filter(([, { onlyAsked, vcpu: wanted }]) => !onlyAsked && (wanted === undefined || wanted === vcpu))
        .map(([number]) => number)
      if (armed.length === 0) continue
      this.#client.singleStep(vcpu)
      this.#isWaiting = true
      const fields = { address: this.#client.readRegister(vcpu, 'rip') }
      return { kind: 'singlestep', armed, vcpu, stops: 'vm', complete: true, fields }
    }
    return undefined
  }

  answered(): void {
    this.#isWaiting = false
  }

  /** The VM has gone. */
  abandon(): void {
    this.#requests.clear()
    this.#isHolding = false
  }

  #hold(): void {
    if (this.#isHolding) return
    this.#run.beginStop()
    this.#isHolding = true
  }

  #letGo(): void {
    this.#isWaiting = false
    if (!this.#isHolding) return
    this.#isHolding = false
    this.#run.endStop()
  }
}
