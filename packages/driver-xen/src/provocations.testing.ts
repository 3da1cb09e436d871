import { setTimeout } from 'node:timers/promises'
import type { AnyVm, Provocation, Provocations } from '@microvmi/conformance'
import { controlPage, type GuestFacts } from '@microvmi/lab-xen'

const MAGIC = 0x5ca1_ab1e_0bad_cafen
/** MSR_TSC_AUX and MSR_LSTAR (Linux, asm/msr-index.h): a process of the guest writes the one, nobody the other. */
const TSC_AUX = 0xc000_0103
const LSTAR = 0xc000_0082

type Count = keyof typeof controlPage.counts
type Answerable = { readonly vcpu: number; reply(parts?: { [P in 'registers' | 'reinject']?: unknown }): void }

/** How the lab's guest brings about each kind of event that Xen's monitor shows on AMD. */
export function provocations({ marks, control }: GuestFacts): Provocations {
  const count = (vm: AnyVm, name: Count, vcpu: number) =>
    vm.memory.readUint64(control + controlPage.vcpus + vcpu * controlPage.vcpuLength + controlPage.counts[name])
  const mark = marks[0]
  if (!mark) throw new Error('the guest told of no process microvmi-marks')

  /** The register is as the reply says before the guest goes on. It is put back: it may be in use. */
  const registers = (event: Answerable, vm: AnyVm): void => {
    const { r11 } = vm.readRegisters(event.vcpu)
    const lease = vm.pause()
    try {
      event.reply({ registers: { r11: MAGIC } })
      const now = vm.readRegisters(event.vcpu).r11
      if (now !== MAGIC) throw new Error(`r11 is 0x${now.toString(16)}`)
      vm.writeRegisters(event.vcpu, { r11 })
    } finally {
      lease.end()
    }
  }
  const delivered =
    (name: Count) =>
    async (event: Answerable, vm: AnyVm): Promise<void> => {
      const before = count(vm, name, event.vcpu)
      event.reply({ reinject: true })
      while (count(vm, name, event.vcpu) <= before) await setTimeout(5)
    }
  /** Registers that come with the response are in force when the vCPU goes on: rip behind the exception, which is lost. */
  const rip =
    (all: Count, taken: Count) =>
    async (event: Answerable & { readonly address: bigint; readonly length?: number | undefined }, vm: AnyVm) => {
      const surplus = () => count(vm, all, event.vcpu) - count(vm, taken, event.vcpu)
      const before = surplus()
      event.reply({ registers: { rip: event.address + BigInt(event.length ?? 0) } })
      while (surplus() <= before) await setTimeout(5)
    }
  const breakpoint: Provocation<'breakpoint'> = {
    request: { kind: 'breakpoint', physicalAddress: mark.physical },
    check: ({ address }) => {
      if (!marks.some(({ landmark }) => landmark === address)) throw new Error(`it is at 0x${address.toString(16)}`)
    },
    never: [{ kind: 'breakpoint', physicalAddress: mark.physical, addressSpace: 0x7fff_f000n }],
    physicalAddress: mark.physical,
    replies: { registers, reinject: delivered('traps') },
  }
  return {
    cr: {
      request: { kind: 'cr', register: 'cr3' },
      check: (event) => {
        if (event.old === event.new) throw new Error('CR3 does not change')
      },
      never: [{ kind: 'cr', register: 'cr3', mask: 1n << 51n }],
      // In the kernel one vCPU waits for the other, which may be held.
      replies: { registers },
    },
    msr: {
      request: { kind: 'msr', msr: TSC_AUX },
      check: (event) => {
        if (event.msr !== TSC_AUX) throw new Error(`it is MSR 0x${event.msr.toString(16)}`)
      },
      never: [{ kind: 'msr', msr: LSTAR }],
      replies: { registers },
    },
    breakpoint,
    int3: {
      request: { kind: 'int3' },
      replies: { registers: rip('breakpoints', 'traps'), reinject: delivered('traps') },
      everyVcpu: true,
    },
    debug: {
      request: { kind: 'debug' },
      replies: { registers: rip('turns', 'steps'), reinject: delivered('steps') },
      everyVcpu: true,
    },
    descriptor: { request: { kind: 'descriptor' }, everyVcpu: true },
    hypercall: { request: { kind: 'hypercall' }, replies: { registers }, everyVcpu: true },
  }
}
