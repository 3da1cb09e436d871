import { expect } from './expect.ts'
import { Skipped } from './failure.ts'
import type { AnyVm, Guest } from './fixture.ts'
import { eventually, type Pace, sleep } from './pace.ts'

/** Something of the guest's that changes while it runs. */
interface Counter {
  readonly name: string
  /** The vCPU that it belongs to, where it belongs to one. */
  readonly vcpu: number | undefined
  read(): number | bigint | undefined | Promise<number | bigint | undefined>
}

/** What a case has learnt of the guest's pace: what is shorter than this, in milliseconds, is no standstill. */
export interface Pulse {
  longest: number
}

/** Whether the guest goes on, as the fixture sees it through an open session. */
export class Progress {
  readonly #pace: Pace
  readonly #counters: readonly Counter[]
  readonly #pulse: Pulse

  /** Throws `Skipped` where the fixture cannot tell. */
  constructor(vm: AnyVm, guest: Guest, pace: Pace, pulse: Pulse) {
    this.#pace = pace
    this.#pulse = pulse
    this.#counters = countersOf(vm, guest)
    if (this.#counters.length === 0) throw new Skipped('the fixture does not tell how to see progress (Guest.progress)')
  }

  /** Throws unless every counter changes. */
  async goesOn(when: string): Promise<void> {
    for (const { name, read } of this.#counters) {
      const before = await read()
      if (before === undefined) continue
      const start = Date.now()
      const moved = await eventually(this.#pace.patience, async () => (await read()) !== before)
      expect(moved, `${name} makes no progress ${when}`)
      this.#pulse.longest = Math.max(this.#pulse.longest, Date.now() - start)
    }
  }

  /** Throws when a counter changes: those of the whole guest, or of one vCPU. Call `goesOn` before. */
  async standsStill(when: string, vcpu?: number): Promise<void> {
    const counters = this.#counters.filter((counter) => vcpu === undefined || counter.vcpu === vcpu)
    const before = await Promise.all(counters.map(({ read }) => read()))
    await sleep(Math.max(this.#pace.lookout, 4 * this.#pulse.longest))
    for (const [index, { name, read }] of counters.entries()) {
      expect((await read()) === before[index], `${name} makes progress ${when}`)
    }
  }
}

function countersOf(vm: AnyVm, guest: Guest): Counter[] {
  const of = guest.progressOf?.bind(guest)
  if (of) {
    return Array.from({ length: vm.vcpuCount }, (_, vcpu) => ({
      name: `vcpu ${vcpu}`,
      vcpu,
      read: () => of(vm, vcpu),
    }))
  }
  const whole = guest.progress?.bind(guest)
  if (!whole) return []
  return [{ name: 'the guest', vcpu: vm.vcpuCount === 1 ? 0 : undefined, read: () => whole(vm) }]
}
