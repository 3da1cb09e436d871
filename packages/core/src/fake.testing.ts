import type { Backend, BackendEvent, EventSink } from './backend.ts'
import type { Capability } from './capability.ts'
import { type Driver, defineDriver } from './contract.ts'
import type { InterceptRequest, Reply } from './events.ts'
import { Patches } from './patches.ts'

/** What a fake backend saw of core. */
export interface Log {
  readonly calls: string[]
  readonly replies: { readonly event: BackendEvent; readonly parts: Reply }[]
  readonly armed: Map<number, InterceptRequest>
}

/** A backend for core's own tests: 64 KiB of memory from 0x10000 on, two vCPUs, and a record of what core did. */
export class FakeBackend implements Backend {
  readonly name: string
  readonly id = '7'
  readonly hypervisor = 'Fake 1.0'
  readonly vcpuCount = 2
  readonly capabilities: readonly Capability[]
  readonly lacks = { views: 'this host has no second-level paging' }
  readonly bytes = Uint8Array.from({ length: 0x10000 }, (_, index) => (index * 7) % 251)
  readonly base = 0x10000
  readonly log: Log = { calls: [], replies: [], armed: new Map() }
  paused = false
  sink: EventSink | undefined
  /** What the next call of a sort throws. */
  readonly failing = new Map<string, Error>()

  constructor(name: string, capabilities: readonly Capability[]) {
    this.name = name
    this.capabilities = capabilities
  }

  readonly memory = {
    patches: new Patches(),
    read: (address: number, into: Uint8Array): number => {
      const usable = this.#usable(address, into.length)
      if (usable === into.length) into.set(this.bytes.subarray(address - this.base, address - this.base + into.length))
      return usable
    },
    write: (address: number, from: Uint8Array): number => {
      const usable = this.#usable(address, from.length)
      if (usable === from.length) this.bytes.set(from, address - this.base)
      return usable
    },
    layout: () => ({ generation: 1, ranges: [{ start: this.base, length: this.bytes.length, kind: 'ram' as const }] }),
    map: (address: number, length: number): Uint8Array | number => {
      const usable = this.#usable(address, length)
      if (usable < length) return usable
      return this.bytes.subarray(address - this.base, address - this.base + length)
    },
    unmap: (): void => {
      this.log.calls.push('unmap')
    },
    setAccess: (): void => {
      this.log.calls.push('setAccess')
    },
    getAccess: () => 'rwx' as const,
  }

  readonly registers = {
    read: (vcpu: number) => {
      const zero = 0n
      return {
        architecture: 'x86-64' as const,
        ...{ rax: BigInt(vcpu), rbx: zero, rcx: zero, rdx: zero, rsi: zero, rdi: zero, rbp: zero, rsp: zero },
        ...{ r8: zero, r9: zero, r10: zero, r11: zero, r12: zero, r13: zero, r14: zero, r15: zero },
        ...{ rip: 0x1000n, rflags: 2n, cr0: zero, cr2: zero, cr3: 0x10000n, cr4: zero },
      }
    },
    writable: new Set(['rax', 'rip', 'cs'] as const),
    write: (vcpu: number): void => {
      this.log.calls.push(`write registers of ${vcpu}`)
    },
  }

  readonly msr = {
    read: (_vcpu: number, index: number): bigint => BigInt(index),
    write: (): void => {
      this.log.calls.push('write msr')
    },
  }

  readonly running = {
    pause: (): void => {
      this.#call('pause')
      this.paused = true
    },
    resume: (): void => {
      this.#call('resume')
      this.paused = false
    },
    state: () => (this.paused ? ('paused' as const) : ('running' as const)),
    setState: (state: 'running' | 'paused'): void => {
      this.#call(`set ${state}`)
    },
  }

  readonly events = {
    listen: (sink: EventSink): void => {
      this.sink = sink
    },
    arm: (request: InterceptRequest, armed: number): void => {
      this.#call('arm')
      this.log.armed.set(armed, request)
    },
    disarm: (armed: number): void => {
      this.#call('disarm')
      this.log.armed.delete(armed)
    },
    reply: (event: BackendEvent, parts: Reply): void => {
      this.#call('reply')
      this.log.replies.push({ event, parts })
    },
  }

  release(): void {
    this.#call('release')
  }

  async close(): Promise<void> {
    this.log.calls.push('close')
  }

  /** A CR3 write of the guest, for every armed request of kind `cr`. */
  writeCr3(value: bigint, vcpu = 0): BackendEvent {
    const armed = [...this.log.armed].filter(([, { kind }]) => kind === 'cr').map(([number]) => number)
    const fields = { register: 'cr3' as const, old: 0n, new: value }
    const event: BackendEvent = { kind: 'cr', armed, vcpu, stops: 'vcpu', complete: true, fields }
    this.sink?.deliver(event)
    return event
  }

  #usable(address: number, length: number): number {
    if (address < this.base) return 0
    return Math.min(length, Math.max(0, this.base + this.bytes.length - address))
  }

  #call(what: string): void {
    this.log.calls.push(what)
    const failure = this.failing.get(what)
    if (failure) throw failure
  }
}

const promises = [
  'memory.read',
  'memory.write',
  'memory.regions',
  'memory.map',
  'memory.access',
  'registers.read',
  'registers.write',
  'msr.read',
  'msr.write',
  'pause',
  'events.cr',
  'events.lifecycle',
  'reply.deny',
  'reply.registers',
  'reply.value',
] as const

/** A driver for core's own tests, and the backends that it opened. */
export function fakeDriver(scheme = 'fake', vms: readonly string[] = ['guest']) {
  const opened: FakeBackend[] = []
  const driver: Driver<{ socket?: string; fast?: boolean; depth?: number }, (typeof promises)[number], 'views'> =
    defineDriver<{ socket?: string; fast?: boolean; depth?: number }>()({
      scheme,
      package: `@test/${scheme} 1.0.0`,
      contract: { major: 0, minor: 1 },
      promises,
      possible: ['views'],
      options: { socket: 'string', fast: 'boolean', depth: 'number' },
      probe: async () => ({ usable: true }),
      list: async () => vms.map((vm) => ({ vm, name: vm, id: vm, state: 'running' as const })),
      open: async ({ vm }) => {
        const backend = new FakeBackend(vm, promises)
        opened.push(backend)
        return backend
      },
    })
  return { driver, opened }
}
