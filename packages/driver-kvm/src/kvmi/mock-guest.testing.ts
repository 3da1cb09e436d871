import type { AnyVm, Guest, Provocation, Provocations } from '@microvmi/conformance'
import type { EventKind, Reply, VmEvent } from '@microvmi/core'
import type { Peers } from './peers.testing.ts'

const PAGE = 4096
/** Low RAM is used neither by the mock guest's kernel nor by its processes. */
const KNOWN = 0x1_0000
const SCRATCH = 0x4_0000
/** The window of video memory: from the end of low RAM to the ROM. */
const HOLE = { start: 0xa_0000, length: 0x5_0000 }
const HIGH_START = 2 ** 32
const HIGH = 2 ** 20
const FS_BASE = 0xc000_0100
const STAR = 0xc000_0081
/** Neither the guest's kernel nor its programs use r11. */
const MAGIC = 0x5ca1_ab1e_0bad_cafen

/** A process that counts its rounds and passes a nop in each. */
const PROBER = `
start:
  mov rbx, DATA
  load64 rax, [rbx]
  add rax, 1
  store64 [rbx], rax
here:
  nop
  mov rdx, 100
wait:
  sub rdx, 1
  jne wait
  jmp start
`

type Replies<K extends EventKind> = NonNullable<Provocation<K>['replies']>
type Described = Awaited<ReturnType<Peers['describe']>>

/** Starts a mock guest behind a peer; what is known of it comes from the mock, by another way than the driver's. */
export async function mockGuest(
  peers: Peers,
  generation: 'A' | 'C',
  socket: string,
  name: string,
): Promise<{ readonly known: Guest; readonly peer: number }> {
  const uuid = Buffer.from(name.padEnd(16).slice(0, 16)).toString('hex')
  const processes = (['caller', 'counter', 'prober'] as const).flatMap((kind) =>
    [0, 1].map((vcpu) => ({ name: `${kind}${vcpu}`, program: kind === 'prober' ? { source: PROBER } : kind })),
  )
  const clock = { clock: 'real', speed: 400_000, timeSlice: 300 } as const
  const guest = { name, ...clock, memory: 4 * 2 ** 20, highMemory: HIGH, vcpus: 2, journalLength: 100, processes }
  const peer = await peers.start({ generation, socket, guest, uuid })
  await peers.run(peer, 1000)
  const bytes = Uint8Array.from({ length: 3 * PAGE }, (_, index) => (index * 7 + (index >> 8)) % 251)
  await peers.write(peer, KNOWN, bytes)
  const described = await peers.describe(peer)
  const prober = processOf(described, 'prober0')
  const here = (await peers.translate(peer, 'prober0', prober.labels.here ?? 0n)) ?? 0
  const known: Guest = {
    vm: name,
    options: { socket, wait: 500 },
    sessions: 'one',
    vcpuCount: 2,
    memory: {
      known: [{ address: KNOWN + 100, bytes: bytes.subarray(100, bytes.length - 50) }],
      end: HIGH_START + HIGH,
      hole: HOLE,
      scratch: { address: SCRATCH, length: 4 * PAGE },
    },
    registers: {
      absent: ['tsc', 'xcr0', 'fmask', 'dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7'],
      async known(vcpu) {
        const { architecture, xcr0, fmask, tsc, dr0, dr1, dr2, dr3, dr6, dr7, ...told } = (await peers.vcpu(peer, vcpu))
          .registers
        return Object.fromEntries(Object.entries(told).filter(([, value]) => value !== undefined))
      },
    },
    progressOf: async (_, vcpu) => (await peers.vcpu(peer, vcpu)).clock,
    provoke: new Shown(peers, peer).provocations(generation, described, here),
    injection: {
      vcpu: 1,
      injection: { type: 'exception', vector: 3 },
      count: () => breakpointsOf(peers, peer, described),
    },
    ...(generation === 'A' ? { remap: (vm: AnyVm) => remapped(peers, peer, described, vm) } : {}),
    vanish: () => peers.stop(peer),
  }
  return { known, peer }
}

/** Events of the mock guest, and what replies to them show. */
class Shown {
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
          never: [{ kind: 'memory', address: SCRATCH, length: PAGE, access: 'rwx' }],
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

/** In a view, a process counts in another page than its own. */
async function remapped(peers: Peers, peer: number, described: Described, vm: AnyVm): Promise<void> {
  const { views } = vm
  const own = processOf(described, 'counter0').data[0] ?? 0
  const count = async () => Buffer.from(await peers.read(peer, SCRATCH, 8)).readBigUInt64LE(0)
  const before = await peers.read(peer, SCRATCH, 8)
  await peers.write(peer, SCRATCH, new Uint8Array(8))
  const view = views.create()
  views.remap(view, own / PAGE, SCRATCH / PAGE)
  await peers.run(peer, 10_000)
  equal(await count(), 0n, 'what is counted in the other page while no vCPU is in the view')
  views.switch(view)
  await peers.run(peer, 10_000)
  if ((await count()) === 0n) throw new Error('the guest does not see the page of the view')
  views.destroy(view)
  await peers.write(peer, SCRATCH, before)
}

async function breakpointsOf(peers: Peers, peer: number, { processes }: Described): Promise<bigint> {
  const all = await Promise.all(processes.map(({ name }) => peers.process(peer, name)))
  return all.reduce((sum, { breakpoints }) => sum + breakpoints, 0n)
}

function processOf({ processes }: Described, name: string): Described['processes'][number] {
  const found = processes.find((one) => one.name === name)
  if (found) return found
  throw new Error(`there is no process ${name}`)
}

async function until(what: string, probe: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 5000; !(await probe()); await new Promise((resolve) => setTimeout(resolve, 2))) {
    if (Date.now() > end) throw new Error(`this does not happen: ${what}`)
  }
}

function equal(actual: unknown, expected: unknown, what: string): void {
  if (actual !== expected) throw new Error(`${what} is ${String(actual)}, not ${String(expected)}`)
}
