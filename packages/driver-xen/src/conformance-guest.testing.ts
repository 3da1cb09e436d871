import type { AnyVm, Guest } from '@microvmi/conformance'
import { open, type RegisterName } from '@microvmi/core'
import { knownPage } from '@microvmi/lab-qemu'
import { controlPage, type GuestFacts, type GuestOptions, startGuest, type XenGuest } from '@microvmi/lab-xen'
import { xen } from './index.ts'
import { machineAddresses } from './machine-addresses.testing.ts'
import { provocations, remapped } from './provocations.testing.ts'

const PAGE = 4096
const ABSENT_IN_PV: readonly RegisterName[] = [
  ...(['tsc', 'cr8', 'xcr0', 'efer', 'star', 'lstar', 'cstar', 'fmask', 'pat', 'apicBase'] as const),
  ...(['sysenterCs', 'sysenterEsp', 'sysenterEip', 'gdt', 'idt', 'ldt', 'tr'] as const),
]

/** A guest of labs/xen's as conformance wants it, brought up again when a case has ended it. */
export class ConformanceGuest {
  readonly #options: GuestOptions
  #running: XenGuest | undefined
  #guest: Guest | undefined
  #hasVanished = false

  constructor(options: GuestOptions) {
    this.#options = options
  }

  async current(): Promise<Guest> {
    this.#guest ??= await this.#bringUp()
    return this.#guest
  }

  async stop(): Promise<void> {
    const running = this.#running
    this.#running = undefined
    this.#guest = undefined
    await running?.destroy()
  }

  async #bringUp(): Promise<Guest> {
    const running = await startGuest(this.#options)
    this.#running = running
    // The cases that end a guest come last, and ask nothing of the programs in it: no need to wait for these again.
    const inside = this.#hasVanished ? {} : this.#known(await this.#facts(running))
    return {
      vm: running.uuid,
      sessions: 'several',
      vcpuCount: this.#options.vcpus ?? 1,
      ...inside,
      vanish: async () => {
        this.#hasVanished = true
        await this.stop()
      },
    }
  }

  /** What the guest's own programs tell, by the addresses that the driver has its memory by. */
  async #facts(running: XenGuest): Promise<GuestFacts> {
    const facts = await running.ready()
    if (running.type !== 'pv') return facts
    await using vm = await open(xen, { vm: running.uuid })
    return machineAddresses(vm, facts)
  }

  #known(facts: GuestFacts): Partial<Guest> {
    const { known, scratch, control } = facts
    const turns = (vm: AnyVm, vcpu: number) =>
      vm.memory.readUint64(control + controlPage.vcpus + vcpu * controlPage.vcpuLength + controlPage.counts.turns)
    return {
      memory: {
        known: known.physical.map((address, index) => ({ address, bytes: knownPage(index) })),
        hole: this.#hole(facts),
        scratch: { address: scratch[0] ?? 0, length: scratch[1] === (scratch[0] ?? 0) + PAGE ? 2 * PAGE : PAGE },
      },
      ...this.#particular(facts),
      progress: (vm) => turns(vm, 0),
      progressOf: (vm, vcpu) => turns(vm, vcpu),
    }
  }

  /** The lowest MiB of the machine is no PV guest's. */
  #hole({ ram }: GuestFacts): { readonly start: number; readonly length: number } {
    const end = ram.at(-1)?.end ?? 0
    const start = this.#options.type === 'pv' ? 0 : Math.ceil(end / PAGE) * PAGE + 2 ** 24
    return { start, length: 2 ** 20 }
  }

  /** What is not there in PV guests, or not the same. */
  #particular(facts: GuestFacts): Partial<Guest> {
    if (this.#options.type === 'pv') return { registers: { absent: ABSENT_IN_PV } }
    return {
      registers: { absent: ['tsc'], writable: { cr2: 0x1234_5000n, kernelGsBase: 0xffff_8880_0000_1000n } },
      provoke: provocations(facts),
      remap: (vm) => remapped(vm, facts),
    }
  }
}
