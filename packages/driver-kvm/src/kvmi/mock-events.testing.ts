import type { AnyVm, Provocation, Provocations } from '@microvmi/conformance'
import type { EventKind, Reply, VmEvent } from '@microvmi/core'
import type { Peers } from './peers.testing.ts'

const PAGE = 4096
/** What the guest does not use. */
const UNUSED = 0x4_0000
const FS_BASE = 0xc000_0100
const STAR = 0xc000_0081
/** Neither the guest's kernel nor its programs use r11. */
const MAGIC = 0x5ca1_ab1e_0bad_cafen

type Replies<K extends EventKind> = NonNullable<Provocation<K>['replies']>
/** What a mock guest says of itself. */
export type Described = Awaited<ReturnType<Peers['describe']>>

/** Events of the mock guest, and what replies to them show. */
export class Shown {
  readonly #peers: Peers
  readonly #peer: number

  constructor(peers: Peers, peer: number) {
    this.#peers = peers
    this.#peer = peer
  }

  provocations(generation: 'A' | 'C', described: Described, here: number): Provocations {
    const caller = processOf(described, 'caller0')
    const prober = processOf(described, 'prober0')
    const service = described.kernel.find(({ name }) => name === 'service_put')
    const data = prober.data[0] ?? 0
    const address = prober.labels.here ?? 0n
    return {
      cr: this.#crs(generation, described),
      msr: {
        request: { kind: 'msr', msr: FS_BASE },
        never: [{ kind: 'msr', msr: STAR }],
        everyVcpu: true,
        replies: this.#msr(generation),
      },
      breakpoint: [
        {
          request: { kind: 'breakpoint', address, addressSpace: prober.cr3 },
          physicalAddress: here,
          replies: {
            ...this.#any(generation),
            step: this.#step,
            reinject: async (event) => {
              const count = async () => (await this.#peers.process(this.#peer, 'prober0')).breakpoints
              const before = await count()
              event.reply({ reinject: true })
              await until('the guest takes its #BP', async () => (await count()) > before)
            },
          },
        },
        {
          request: { kind: 'breakpoint', physicalAddress: service?.physical ?? 0 },
          physicalAddress: service?.physical ?? 0,
          never: [{ kind: 'breakpoint', address: caller.labels.own_breakpoint ?? 0n, addressSpace: prober.cr3 }],
          everyVcpu: true,
        },
      ],
      int3: {
        request: { kind: 'int3' },
        everyVcpu: true,
        replies: {
          ...this.#any(generation),
          step: this.#step,
          deny: (event, vm) =>
            this.#stopped(vm, event, { deny: true }, ({ registers: { rip } }) => {
              // It may have executed the next one on its way to the pause.
              if (rip <= event.address) throw new Error(`rip is ${rip}, not behind the int3 at ${event.address}`)
            }),
        },
      },
      memory: [
        {
          request: { kind: 'memory', address: data, length: 8, access: 'rw' },
          never: [{ kind: 'memory', address: UNUSED, length: PAGE, access: 'rwx' }],
          replies: {
            ...this.#any(generation),
            step: this.#step,
            ...(generation === 'A' ? { emulate: this.#emulate(data) } : {}),
          },
        },
        {
          request: { kind: 'memory', address: service?.physical ?? 0, length: 1, access: 'x' },
          everyVcpu: true,
        },
      ],
      singlestep: {
        request: { kind: 'singlestep' },
        never: [{ kind: 'singlestep', onlyAsked: true }],
        everyVcpu: true,
        replies: { ...this.#any(generation), step: this.#step },
      },
      ...(generation === 'A'
        ? {
            cpuid: {
              request: { kind: 'cpuid', leaf: 1 },
              never: [{ kind: 'cpuid', leaf: 0x4000_0000 }],
              everyVcpu: true,
              replies: this.#any(generation),
            },
          }
        : {}),
      descriptor: { request: { kind: 'descriptor' }, everyVcpu: true, replies: this.#any(generation) },
      hypercall: {
        request: { kind: 'hypercall' },
        everyVcpu: true,
        check: (event) => {
          if (event.number !== 7n) throw new Error(`the guest calls 7, not ${event.number}`)
        },
        replies: this.#any(generation),
      },
    }
  }

  #crs(generation: 'A' | 'C', { processes }: Described): [Provocation<'cr'>, ...Provocation<'cr'>[]] {
    const xcr0: Provocation<'cr'> = { request: { kind: 'cr', register: 'xcr0' } }
    return [
      {
        request: { kind: 'cr', register: 'cr3' },
        never: [{ kind: 'cr', register: 'cr3', mask: 1n << 51n }],
        everyVcpu: true,
        check: (event) => {
          const known = processes.some(({ cr3 }) => cr3 === event.new)
          if (!known) throw new Error(`no process has CR3 ${event.new}`)
        },
        replies: this.#cr(generation),
      },
      { request: { kind: 'cr', register: 'cr0' } },
      { request: { kind: 'cr', register: 'cr4', mask: 4n } },
      ...(generation === 'C' ? [xcr0] : []),
    ]
  }

  /** What fits every event. */
  #any(generation: 'A' | 'C') {
    const registers = (event: Answerable, vm: AnyVm) =>
      this.#stopped(vm, event, { registers: { r11: MAGIC } }, (now) => equal(now.registers.r11, MAGIC, 'r11'))
    const view = async (event: Answerable, vm: AnyVm) => {
      const { views } = vm
      const created = views.create()
      await this.#stopped(vm, event, { view: created }, (now) => equal(now.view, created, 'the view'))
      views.destroy(created)
    }
    const inject = async (event: Answerable) => {
      const before = await this.#exceptions()
      event.reply({ inject: { type: 'exception', vector: 1 } })
      await until('the exception is taken', async () => (await this.#exceptions()) > before)
    }
    return generation === 'A' ? { registers, view, inject } : { registers, inject }
  }

  #cr(generation: 'A' | 'C'): Replies<'cr'> {
    return {
      ...this.#any(generation),
      deny: (event, vm) =>
        this.#stopped(vm, event, { deny: true }, ({ registers }) => equal(registers.cr3, event.old, 'cr3')),
      value: (event, vm) =>
        this.#stopped(vm, event, { value: event.old }, ({ registers }) => equal(registers.cr3, event.old, 'cr3')),
    }
  }

  #msr(generation: 'A' | 'C'): Replies<'msr'> {
    const fsBase = (vm: AnyVm, vcpu: number) => vm.readMsr(vcpu, FS_BASE)
    return {
      ...this.#any(generation),
      deny: (event, vm) =>
        this.#stopped(vm, event, { deny: true }, () => equal(fsBase(vm, event.vcpu), event.old, 'the MSR')),
      value: (event, vm) =>
        this.#stopped(vm, event, { value: 0x7ff0_0000n }, () => equal(fsBase(vm, event.vcpu), 0x7ff0_0000n, 'the MSR')),
    }
  }

  readonly #step = async (event: Answerable, vm: AnyVm): Promise<void> => {
    let stepped: number | undefined
    const { intercept } = vm as unknown as { intercept(what: object, handler: (one: Answerable) => void): Disposable }
    const steps = intercept.call(vm, { kind: 'singlestep', onlyAsked: true }, (one: Answerable) => {
      stepped ??= one.vcpu
    })
    event.reply({ step: true })
    await until('the step', () => stepped !== undefined)
    steps[Symbol.dispose]()
    equal(stepped, event.vcpu, 'the vCPU that was stepped')
  }

  /** A read that finds other data: the program counts on from them. */
  #emulate(address: number): NonNullable<Replies<'memory'>['emulate']> {
    return async (event, vm) => {
      let read: VmEvent<'memory', 'emulate'> | undefined
      const request = { kind: 'memory', address, length: 8, access: 'rw' } as const
      const intercept = vm.intercept(request, (one) => {
        if (read || one.access !== 'r') return
        read = one
        one.hold()
      })
      event.reply()
      await until('the guest reads', () => read !== undefined)
      const data = Buffer.alloc(8)
      data.writeBigUInt64LE(MAGIC)
      read?.reply({ emulate: { data } })
      const word = async () => Buffer.from(await this.#peers.read(this.#peer, address, 8)).readBigUInt64LE(0)
      await until('the guest has read what was emulated', async () => (await word()) > MAGIC)
      intercept.close()
    }
  }

  /** Answers while the VM is paused, and looks at the vCPU before it does anything more than the answer. */
  async #stopped(
    vm: AnyVm,
    event: Answerable,
    reply: Reply,
    look: (now: Awaited<ReturnType<Peers['vcpu']>>) => void,
  ): Promise<void> {
    const lease = vm.pause()
    try {
      event.reply(reply)
      // The kernel has the answer before this: the other way to the guest could be faster.
      vm.readRegisters(event.vcpu)
      look(await this.#peers.vcpu(this.#peer, event.vcpu))
    } finally {
      lease.end()
    }
  }

  async #exceptions(): Promise<bigint> {
    const names = ['counter0', 'counter1', 'prober0', 'prober1', 'caller0', 'caller1']
    const all = await Promise.all(names.map((name) => this.#peers.process(this.#peer, name)))
    return all.reduce((sum, { debugExceptions }) => sum + debugExceptions, 0n)
  }
}

interface Answerable {
  readonly vcpu: number
  reply(parts?: Reply): void
}

/** A process by its name. */
export function processOf({ processes }: Described, name: string): Described['processes'][number] {
  const found = processes.find((one) => one.name === name)
  if (found) return found
  throw new Error(`there is no process ${name}`)
}

/** Waits for what must happen. */
async function until(what: string, probe: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 5000; !(await probe()); await new Promise((resolve) => setTimeout(resolve, 2))) {
    if (Date.now() > end) throw new Error(`this does not happen: ${what}`)
  }
}

/** Throws unless both are the same. */
export function equal(actual: unknown, expected: unknown, what: string): void {
  if (actual !== expected) throw new Error(`${what} is ${String(actual)}, not ${String(expected)}`)
}
