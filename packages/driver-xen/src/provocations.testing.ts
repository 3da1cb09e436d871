import { setTimeout } from 'node:timers/promises'
import type { AnyVm, Provocation, Provocations } from '@microvmi/conformance'
import { controlPage, type GuestFacts } from '@microvmi/lab-xen'

const MAGIC = 0x5ca1_ab1e_0bad_cafen
/** MSR_TSC_AUX and MSR_LSTAR (Linux, asm/msr-index.h): a process of the guest writes the one, nobody the other. */
const TSC_AUX = 0xc000_0103
const LSTAR = 0xc000_0082

/** Of Xen's (xen/include/public/arch-x86/cpuid.h): what the guest's process asks for. */
const HYPERVISOR_LEAF = 0x4000_0000
const PAGE = 4096
const INT3 = 0xcc

type Count = keyof typeof controlPage.counts
type Answerable = {
  readonly vcpu: number
  readonly registers: { readonly rip: bigint } | undefined
  reply(parts?: { [P in 'registers' | 'reinject' | 'step']?: unknown }): void
}

/** How the lab's guest brings about each kind of event that Xen's monitor shows. */
export function provocations({ marks, control, scratch }: GuestFacts): Provocations {
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
  /** The guest goes on behind the CPUID, which it counts, and comes by again. */
  const skipped = async (event: Answerable & { readonly length: number }, vm: AnyVm): Promise<void> => {
    const before = count(vm, 'cpuids', event.vcpu)
    event.reply({ registers: { rip: (event.registers?.rip ?? 0n) + BigInt(event.length) } })
    while (count(vm, 'cpuids', event.vcpu) <= before) await setTimeout(5)
  }
  /** What the guest reads from its port, where nobody answers: ones, but for the reply. */
  const reading =
    (expected: bigint, parts: (event: Answerable) => object) =>
    async (event: Answerable, vm: AnyVm): Promise<void> => {
      const others = vm.intercept({ kind: 'io', port: controlPage.ports.written })
      const next = others[Symbol.asyncIterator]()
      event.reply(parts(event))
      // It writes to the other port when it has noted what it read.
      let written = (await next.next()).value
      while (written !== undefined && written.vcpu !== event.vcpu) written = (await next.next()).value
      const value = count(vm, 'portValue', event.vcpu)
      others.close()
      if (value !== expected) throw new Error(`the guest read 0x${value.toString(16)}`)
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
      replies: { reinject: delivered('steps') },
      everyVcpu: true,
    },
    descriptor: { request: { kind: 'descriptor' }, everyVcpu: true },
    hypercall: { request: { kind: 'hypercall' }, replies: { registers }, everyVcpu: true },
    cpuid: {
      request: { kind: 'cpuid', leaf: HYPERVISOR_LEAF },
      check: (event) => {
        if (event.length !== 2) throw new Error(`its length is ${event.length}`)
      },
      never: [{ kind: 'cpuid', leaf: 0x8fff_fff0 }],
      replies: { registers: skipped },
      everyVcpu: true,
    },
    io: [
      {
        request: { kind: 'io', port: controlPage.ports.read },
        check: (event) => {
          if (event.direction !== 'in' || event.size !== 1) throw new Error(`${event.size} bytes ${event.direction}`)
        },
        never: [{ kind: 'io', port: controlPage.ports.written + 1 }],
        replies: {
          registers: reading(0x33n, ({ registers }) => ({
            registers: { rax: 0x33n, rip: (registers?.rip ?? 0n) + 1n },
          })),
          deny: reading(0x33n, () => ({ deny: true, registers: { rax: 0x33n } })),
          emulate: reading(0x42n, () => ({ emulate: { data: Uint8Array.of(0x42) } })),
        },
        everyVcpu: true,
      },
      {
        request: { kind: 'io', port: controlPage.ports.written },
        check: (event) => {
          if (event.direction !== 'out' || event.size !== 1) throw new Error(`${event.size} bytes ${event.direction}`)
        },
        everyVcpu: true,
      },
    ],
    memory: {
      // The guest counts in it at each turn.
      request: { kind: 'memory', address: control, length: 1, access: 'w' },
      check: (event) => {
        if (!event.access.includes('w')) throw new Error(`it is an access '${event.access}'`)
      },
      never: [{ kind: 'memory', address: scratch[0] ?? 0, length: 1, access: 'w' }],
      replies: { registers: changed, step: stepped },
      everyVcpu: true,
    },
    singlestep: {
      request: { kind: 'singlestep', onlyAsked: true },
      // No interrupt reaches a vCPU that is stepped all the time: the guest would not go on.
      provoke: (vm) => {
        const breakpoint = vm.intercept({ kind: 'breakpoint', physicalAddress: mark.physical }, () => {
          setImmediate(() => breakpoint.close())
          return { step: true }
        })
      },
      check: (event) => {
        // A nop of one byte is at the landmark.
        if (!marks.some(({ landmark }) => landmark + 1n === event.address)) {
          throw new Error(`it is at 0x${event.address.toString(16)}`)
        }
      },
    },
  }
}

/** Answers with a step, and waits for it. */
async function stepped(event: Answerable, vm: AnyVm, registers: { readonly r11?: bigint } = {}): Promise<void> {
  const { r11 } = vm.readRegisters(event.vcpu)
  const steps = vm.intercept({ kind: 'singlestep', onlyAsked: true })
  const next = steps[Symbol.asyncIterator]().next()
  event.reply({ step: true, registers })
  const step = (await next).value
  if (step?.vcpu !== event.vcpu) throw new Error(`vCPU ${step?.vcpu} was stepped, and not ${event.vcpu}`)
  const wanted = registers.r11 ?? r11
  if (step.registers?.r11 !== wanted) throw new Error(`r11 is 0x${step.registers?.r11.toString(16)} behind the step`)
  step.reply({ registers: { r11 } })
  steps.close()
}

/** The registers are changed before the instruction is executed. */
function changed(event: Answerable, vm: AnyVm): Promise<void> {
  return stepped(event, vm, { r11: vm.readRegisters(event.vcpu).r11 ^ 0xf0n })
}

/** A page of the guest's code with another instruction in one view: the guest executes that there, and its own outside. */
export function remapped(vm: AnyVm, { marks }: GuestFacts): Promise<void> {
  const { physical = 0, landmark = 0n } = marks[0] ?? {}
  return withHiddenBreakpoint(vm, physical, landmark)
}

/** A breakpoint in a page of ours that one view shows in place of the guest's, stepped over in the guest's own view. */
export async function withHiddenBreakpoint(vm: AnyVm, physical: number, address: bigint): Promise<void> {
  const page = physical - (physical % PAGE)
  const shadow = vm.memory.allocate()
  const code = new Uint8Array(PAGE)
  vm.memory.read(page, code)
  code[physical - page] = INT3
  vm.memory.write(shadow, code)
  const view = vm.views.create()
  try {
    vm.views.remap(view, page / PAGE, shadow / PAGE)
    vm.memory.setAccess(page, PAGE, 'x', view)
    let times = 0
    // It listens before the guest comes there, and until it is back: else the guest would be given what is not its own.
    const intercept = vm.intercept({ kind: 'int3' }, (event) => {
      if (event.address !== address) return undefined
      times += 1
      return { step: { view: 0 } }
    })
    vm.views.switch(view)
    while (times < 3) await setTimeout(5)
    vm.views.switch(0)
    intercept.close()
  } finally {
    vm.views.destroy(view)
    vm.memory.free(shadow)
  }
}
