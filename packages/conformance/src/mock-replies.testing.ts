import type { EventKind, Intercept, InterceptRequest, Reply, VmEvent } from '@microvmi/core'
import { assemble, type Guest as MockGuest } from '@microvmi/mock'
import type { AnyVm, Provocation } from './index.ts'

type Replies<K extends EventKind> = NonNullable<Provocation<K>['replies']>

/** An event, whatever its kind. */
interface Answerable {
  readonly vcpu: number
  reply(parts?: Reply): void
}

/** Neither the guest's kernel nor its programs use r11. */
const MAGIC = 0x5ca1_ab1e_0bad_cafen
/** Instructions of a vCPU in which the guest surely does everything that it does. */
const WHILE = 10_000

/** Shows each part of a reply on a mock guest: what becomes of the guest is seen by who made it. */
export class MockReplies {
  readonly #guest: MockGuest

  constructor(guest: MockGuest) {
    this.#guest = guest
  }

  /** What fits every event that stops a vCPU. */
  readonly any = {
    registers: (event: Answerable, vm: AnyVm) => {
      this.#stopped(vm, () => {
        event.reply({ registers: { r11: MAGIC } })
        equal(this.#guest.vcpu(event.vcpu).registers.r11, MAGIC, 'r11')
      })
    },
    view: (event: Answerable, vm: AnyVm) => {
      const { views } = vm
      const view = views.create()
      event.reply({ view })
      equal(this.#guest.vcpu(event.vcpu).view, view, 'the view')
      views.destroy(view)
    },
    inject: async (event: Answerable) => {
      const before = this.counter(event.vcpu, 0x18)
      event.reply({ inject: { type: 'nmi' } })
      await this.#until('the NMI is taken', () => this.counter(event.vcpu, 0x18) > before)
    },
  } as const

  readonly #step = async (event: Answerable, vm: AnyVm): Promise<void> => {
    const { event: step, end } = await this.#answered(vm, () => event.reply({ step: true }))
    equal(step.vcpu, event.vcpu, 'the vCPU that was stepped')
    end()
  }

  readonly cr: Replies<'cr'> = {
    ...this.any,
    deny: (event, vm) => {
      this.#stopped(vm, () => {
        event.reply({ deny: true })
        equal(this.#guest.vcpu(event.vcpu).registers.cr3, event.old, 'cr3')
      })
    },
    value: (event, vm) => {
      this.#stopped(vm, () => {
        event.reply({ value: event.old })
        equal(this.#guest.vcpu(event.vcpu).registers.cr3, event.old, 'cr3')
      })
    },
  }

  readonly msr: Replies<'msr'> = {
    ...this.any,
    deny: (event, vm) => {
      this.#stopped(vm, () => {
        event.reply({ deny: true })
        equal(vm.readMsr(event.vcpu, event.msr), event.old, 'the MSR')
      })
    },
    value: (event, vm) => {
      this.#stopped(vm, () => {
        event.reply({ value: 0x7ff0_0000n })
        equal(vm.readMsr(event.vcpu, event.msr), 0x7ff0_0000n, 'the MSR')
      })
    },
  }

  /** For a breakpoint at a nop of the process prober0. */
  readonly breakpoint: Replies<'breakpoint'> = {
    ...this.any,
    step: this.#step,
    emulate: async (event) => {
      const count = () => this.#guest.process('prober0').debugExceptions
      const before = count()
      // int1 in place of the nop.
      event.reply({ emulate: { instruction: Uint8Array.of(0xf1) } })
      await this.#until('the instruction is executed', () => count() > before)
    },
    reinject: async (event) => {
      const count = () => this.#guest.process('prober0').breakpoints
      const before = count()
      event.reply({ reinject: true })
      await this.#until('the guest takes its #BP', () => count() > before)
    },
  }

  readonly int3: Replies<'int3'> = {
    ...this.any,
    step: this.#step,
    emulate: (event, vm) =>
      this.#never(vm, event, { kind: 'int3' }, 'breakpoints', (one) =>
        one.length === 1 ? { emulate: { instruction: Uint8Array.of(0x90) } } : { deny: true },
      ),
    reinject: async (event) => {
      const before = this.#sum('breakpoints')
      event.reply({ reinject: true })
      await this.#until('the guest takes its #BP', () => this.#sum('breakpoints') > before)
    },
    deny: (event, vm) => this.#never(vm, event, { kind: 'int3' }, 'breakpoints', () => ({ deny: true })),
  }

  readonly watchpoint: Replies<'watchpoint'> = { ...this.any, step: this.#step }

  memory(request: InterceptRequest<'memory'>): Replies<'memory'> {
    const word = () => new DataView(this.#guest.read(request.address, 8).buffer).getBigUint64(0, true)
    return {
      ...this.any,
      step: this.#step,
      deny: (event, vm) => this.#never(vm, event, request, word, () => ({ deny: true })),
      emulate: async (event, vm) => {
        const read = await this.#next(
          vm,
          request,
          (one) => one.access === 'r',
          () => event.reply(),
        )
        const data = new Uint8Array(8)
        new DataView(data.buffer).setBigUint64(0, MAGIC, true)
        read.event.reply({ emulate: { data } })
        // The program counts on from what it has read.
        await this.#until('the guest reads what was emulated', () => word() > MAGIC)
        read.end()
      },
    }
  }

  readonly singlestep: Replies<'singlestep'> = { ...this.any, step: this.#step }
  readonly cpuid: Replies<'cpuid'> = this.any
  readonly hypercall: Replies<'hypercall'> = this.any
  readonly privcall: Replies<'privcall'> = this.any

  readonly descriptor: Replies<'descriptor'> = {
    ...this.any,
    deny: async (event, vm) => {
      const { event: read, end } = await this.#taskRegisterRead(vm, event)
      const before = this.#guest.vcpu(read.vcpu).registers.rax
      this.#stopped(vm, () => {
        read.reply({ deny: true })
        equal(this.#guest.vcpu(read.vcpu).registers.rax, before, 'rax, which the task register is read to,')
      })
      end()
    },
    emulate: async (event, vm) => {
      const { event: read, end } = await this.#taskRegisterRead(vm, event)
      const { rip } = this.#guest.vcpu(read.vcpu).registers
      // As long as the guest's own instruction.
      const answer = () => read.reply({ emulate: { instruction: assemble('vmcall', 0n).bytes } })
      const isThere = ({ registers }: VmEvent<'hypercall'>) => registers?.rip === rip
      const call = await this.#next(vm, { kind: 'hypercall' }, isThere, answer)
      call.end()
      end()
    },
  }

  readonly debug: Replies<'debug'> = {
    ...this.any,
    step: this.#step,
    reinject: async (event) => {
      const before = this.#sum('debugExceptions')
      event.reply({ reinject: true })
      await this.#until('the guest takes its #DB', () => this.#sum('debugExceptions') > before)
    },
    deny: (event, vm) => this.#never(vm, event, { kind: 'debug' }, 'debugExceptions', () => ({ deny: true })),
  }

  readonly io: Replies<'io'> = {
    ...this.any,
    deny: (event, vm) => {
      const written = () => BigInt(this.#guest.console.length)
      return this.#never(vm, event, { kind: 'io', port: event.port }, written, () => ({ deny: true }))
    },
    emulate: async (event, vm) => {
      const clock = { kind: 'io', port: 0x71 } as const
      const read = await this.#next(
        vm,
        clock,
        () => true,
        () => event.reply(),
      )
      this.#stopped(vm, () => {
        read.event.reply({ emulate: { data: Uint8Array.of(0x5a) } })
        equal(this.#guest.vcpu(read.event.vcpu).registers.rax & 0xffn, 0x5an, 'al, which the port is read to,')
      })
      read.end()
    },
  }

  readonly interrupt: Replies<'interrupt'> = {
    ...this.any,
    deny: (event, vm) => {
      const timer = { kind: 'interrupt', vector: event.vector } as const
      return this.#never(
        vm,
        event,
        timer,
        () => this.counter(event.vcpu, 0x10),
        () => ({ deny: true }),
      )
    },
    reinject: async (event) => {
      const before = this.counter(event.vcpu, 0x10)
      event.reply({ reinject: true })
      await this.#until('the guest takes its interrupt', () => this.counter(event.vcpu, 0x10) > before)
    },
  }

  /** A counter in a vCPU's page (docs/guest.md of the mock), which has the task-state segment at 0x100. */
  counter(vcpu: number, offset: number): bigint {
    const base = this.#guest.vcpu(vcpu).registers.tr?.base ?? 0n
    const physical = Number(base - 0xffff_8880_0000_0000n) - 0x100 + offset
    return new DataView(this.#guest.read(physical, 8).buffer).getBigUint64(0, true)
  }

  #sum(what: 'breakpoints' | 'debugExceptions'): bigint {
    return this.#guest.processes.reduce((sum, process) => sum + process[what], 0n)
  }

  /** The event of the guest's reading of its task register. */
  #taskRegisterRead(vm: AnyVm, first: Answerable) {
    const fits = (one: VmEvent<'descriptor'>) => one.table === 'tr' && !one.write
    return this.#next(vm, { kind: 'descriptor' }, fits, () => first.reply())
  }

  #stopped(vm: AnyVm, look: () => void): void {
    const lease = vm.pause()
    try {
      look()
    } finally {
      lease.end()
    }
  }

  /** Answers all events of a request alike, the first one included, and throws when the guest counts one of them. */
  async #never<K extends EventKind>(
    vm: AnyVm,
    first: VmEvent<K> & Answerable,
    request: InterceptRequest<K>,
    counted: 'breakpoints' | 'debugExceptions' | (() => bigint),
    answer: (event: VmEvent<K>) => Reply,
  ): Promise<void> {
    const count = typeof counted === 'string' ? () => this.#sum(counted) : counted
    const intercept = intercepting(vm).intercept([request], answer)
    first.reply(answer(first))
    // What was on its way when the first one was answered.
    await this.#guest.run(2)
    const before = count()
    await this.#guest.run(WHILE)
    equal(count(), before, 'what the guest counts')
    intercept.close()
  }

  /** The next event that fits, held. */
  async #next<K extends EventKind>(
    vm: AnyVm,
    request: InterceptRequest<K>,
    fits: (event: VmEvent<K>) => boolean,
    then: () => void,
  ): Promise<{ readonly event: VmEvent<K>; end(): void }> {
    let found: VmEvent<K> | undefined
    const intercept = intercepting(vm).intercept([request], (event: VmEvent<K>) => {
      if (found || !fits(event)) return
      found = event
      event.hold()
    })
    then()
    await this.#until('the event comes', () => found !== undefined)
    if (!found) throw new Error('it is there')
    return { event: found, end: () => intercept.close() }
  }

  /** The step after an answer. */
  #answered(vm: AnyVm, answer: () => void) {
    return this.#next(vm, { kind: 'singlestep', onlyAsked: true }, () => true, answer)
  }

  async #until(what: string, probe: () => boolean): Promise<void> {
    for (const end = Date.now() + 5000; !probe(); await new Promise((resolve) => setTimeout(resolve, 2))) {
      if (Date.now() > end) throw new Error(`this does not happen: ${what}`)
    }
  }
}

/** An intercept whose kind is known where it is used. */
interface Intercepting {
  intercept(requests: readonly object[], handler: (event: never) => Reply | undefined | void): Intercept<never>
}

function intercepting(vm: AnyVm): Intercepting {
  return vm as unknown as Intercepting
}

function equal(actual: unknown, expected: unknown, what: string): void {
  if (actual !== expected) throw new Error(`${what} is ${String(actual)}, not ${String(expected)}`)
}
