import { setTimeout } from 'node:timers/promises'
import type { AnyVm, Provocation, Provocations } from '@microvmi/conformance'
import type { EventKind, Intercept, VmEvent } from '@microvmi/core'
import type { GuestFacts } from '@microvmi/lab-qemu'

/** Bytes from the start of the guest's counters (struct shared, labs/qemu/guest/init.c). */
const COUNTERS = { landmarks: 0, breakpoints: 8, traps: 16, rounds: 24, debugs: 32 } as const

const MAGIC = 0x5ca1_ab1e_0bad_cafen
/** No process of the guest's has its page tables there. */
const NOBODY = 0x7fff_f000n

type Part = 'registers' | 'step' | 'reinject'
type Answerable = { readonly vcpu: number; reply(parts?: { [P in Part]?: unknown }): void }

/** How the lab's guest brings about each kind of event that stock QEMU shows. */
export function provocations({ marks }: GuestFacts, { msrs }: { readonly msrs: boolean }): Provocations {
  const { landmark, shared } = marks
  const count = (vm: AnyVm, name: keyof typeof COUNTERS) => vm.memory.readUint64(marks.counters + COUNTERS[name])

  /** The register is as the reply says before the guest goes on. It is put back: it may be in use. */
  const registers = (event: Answerable, vm: AnyVm): void => {
    const { r11 } = vm.readRegisters(event.vcpu)
    const lease = vm.pause()
    try {
      event.reply({ registers: { r11: MAGIC } })
      equal(vm.readRegisters(event.vcpu).r11, MAGIC, 'r11')
      vm.writeRegisters(event.vcpu, { r11 })
    } finally {
      lease.end()
    }
  }
  const step = async (event: Answerable, vm: AnyVm): Promise<void> => {
    const steps = vm.intercept({ kind: 'singlestep', onlyAsked: true })
    const stepped = first(steps)
    event.reply({ step: true })
    equal((await stepped).vcpu, event.vcpu, 'the vCPU that was stepped')
    steps.close()
  }
  const breakpoint = (method: 'hardware' | 'software'): Provocation<'breakpoint'> => ({
    request: { kind: 'breakpoint', address: landmark, method },
    check: ({ address, registers }) => {
      equal(address, landmark, "the event's address")
      equal(registers?.rip, landmark, 'rip')
    },
    never: [{ kind: 'breakpoint', address: landmark, method, addressSpace: NOBODY }],
    physicalAddress: marks.code,
    replies: {
      registers,
      step,
      reinject: async (event, vm) => {
        const surplus = () => count(vm, 'traps') - count(vm, 'breakpoints')
        const before = surplus()
        event.reply({ reinject: true })
        while (surplus() <= before) await setTimeout(5)
      },
    },
  })
  const delivered =
    (name: 'traps' | 'debugs') =>
    async (event: Answerable, vm: AnyVm): Promise<void> => {
      const before = count(vm, name)
      event.reply({ reinject: true })
      while (count(vm, name) <= before) await setTimeout(5)
    }

  return {
    breakpoint: [breakpoint('hardware'), breakpoint('software')],
    watchpoint: {
      request: { kind: 'watchpoint', address: shared, length: 8, access: 'w' },
      check: ({ address, access }) => equal(`${address} ${access}`, `${shared} w`, 'what was written'),
      never: [{ kind: 'watchpoint', address: shared, length: 8, access: 'w', addressSpace: NOBODY }],
      replies: { registers, step },
    },
    singlestep: { request: { kind: 'singlestep' }, everyVcpu: true, replies: { registers, step } },
    int3: {
      request: { kind: 'int3' },
      check: ({ length }) => equal(length, 1, 'the length of the int3'),
      replies: { registers, step, reinject: delivered('traps') },
    },
    debug: { request: { kind: 'debug' }, replies: { registers, step, reinject: delivered('debugs') } },
    cr: {
      request: { kind: 'cr', register: 'cr3' },
      check: (event) => {
        if (event.old === event.new) throw new Error('CR3 does not change')
      },
      never: [{ kind: 'cr', register: 'cr3', mask: 1n << 51n }],
      replies: { registers },
    },
    ...(msrs ? { msr: fsBase } : {}),
  }
}

/** FS.base (Linux, asm/msr-index.h), which is another one in each process. */
const fsBase: Provocation<'msr'> = {
  request: { kind: 'msr', msr: 0xc000_0100, onChange: false },
  never: [{ kind: 'msr', msr: 0xc000_0081 }],
}

async function first<K extends EventKind>(intercept: Intercept<VmEvent<K>>): Promise<VmEvent<K>> {
  for await (const event of intercept) return event
  throw new Error('the intercept ended')
}

function equal(actual: unknown, expected: unknown, what: string): void {
  if (actual !== expected) throw new Error(`${what} is ${String(actual)} where ${String(expected)} is right`)
}
