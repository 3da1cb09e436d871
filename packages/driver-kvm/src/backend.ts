import { type BackendWith, type Capability, type Detail, type Injection, MicrovmiError } from '@microvmi/core/driver'
import { Breakpoints } from './breakpoints.ts'
import { CodeMemory } from './code-memory.ts'
import { QemuEvents } from './events.ts'
import { GdbStub } from './gdb-stub.ts'
import { GuestRam, type MemoryWay } from './guest-ram.ts'
import type { HostMemory } from './host-memory.ts'
import { acceleratorOf, MemoryLocator } from './locate-memory.ts'
import { QemuMsrs } from './msrs.ts'
import { SavedMemory } from './pmemsave.ts'
import { PrivateDirectory } from './private-directory.ts'
import { ProcMemory } from './proc-memory.ts'
import { ProcessMemory } from './process-memory.ts'
import { array, type Qmp } from './qmp.ts'
import { recover } from './recovery.ts'
import { QemuRegisters } from './registers.ts'
import { QemuRunState } from './run-state.ts'

/** What every VM of the driver has. */
export const PROMISES = [
  'memory.read',
  'memory.regions',
  'registers.read',
  'registers.write',
  'msr.read',
  'pause',
  'events.lifecycle',
  'events.breakpoint',
  'events.int3',
  'events.debug',
  'events.watchpoint',
  'events.singlestep',
  'events.cr',
  'reply.registers',
  'reply.step',
  'reply.reinject',
] as const

/** What depends on how QEMU keeps the guest's memory, on this user's rights, on the accelerator, on the vCPUs. */
export const POSSIBLE = ['memory.write', 'memory.map', 'events.msr', 'inject'] as const

const WAYS: readonly MemoryWay[] = ['shared', 'process_vm', 'proc', 'qmp']

/** One VM of stock QEMU. */
export class QemuBackend implements BackendWith<(typeof PROMISES)[number]> {
  readonly name: string
  readonly id: string
  readonly hypervisor: string
  readonly capabilities: readonly Capability[]
  readonly lacks: { readonly [Name in Capability]?: string }
  readonly warnings: readonly string[]
  readonly memory: GuestRam
  readonly registers: QemuRegisters
  readonly msr: QemuMsrs
  readonly running: QemuRunState
  readonly events: QemuEvents
  readonly #qmp: Qmp
  readonly #pid: number
  readonly #accelerator: string
  readonly #directory: PrivateDirectory
  #gone: MicrovmiError | undefined

  /**
   * @param qmp is this object's from now on, also when the constructor throws
   * @param wanted only this way to memory, for tests and for hosts where another one misleads
   */
  constructor(qmp: Qmp, pid: number, timeout: number, wanted: MemoryWay | undefined) {
    this.#qmp = qmp
    this.#pid = pid
    this.id = String(pid)
    this.#directory = new PrivateDirectory(pid)
    const ways = new Set(wanted === undefined ? WAYS : [wanted])
    const warnings: string[] = []
    let host: HostMemory | undefined
    let locator: MemoryLocator | undefined
    try {
      const name = qmp.query('query-name').name
      this.name = typeof name === 'string' ? name : this.id
      this.#accelerator = acceleratorOf(qmp)
      this.hypervisor = `${qmp.version} (${this.#accelerator})`
      host = openHostMemory(pid, ways, warnings)
      locator = new MemoryLocator(qmp, pid, ways.has('shared'))
      const saved = new SavedMemory(qmp, this.#directory)
      this.memory = new GuestRam(locator, host, saved, qmp, () => this.#throwGone())
      this.warnings = warnings
      const onKvm = this.#accelerator === 'kvm'
      const possible = {
        'memory.write': this.memory.isWritable,
        'memory.map': this.memory.isMappable,
        'events.msr': !onKvm,
        inject: this.vcpuCount === 1,
      }
      this.capabilities = [...PROMISES, ...POSSIBLE.filter((name) => possible[name])]
      this.lacks = {
        'memory.write': "this user may write neither to QEMU's memory nor to its RAM file",
        'memory.map':
          'its RAM is not in shared memory: start QEMU with -object memory-backend-memfd,share=on,… for that',
        'events.msr':
          "a kernel has more wrmsr instructions than a vCPU has debug registers; the driver 'kvmi' has them",
        inject: 'QEMU injects NMIs only, and into all vCPUs at once: this VM has several',
      }
      const stub = new GdbStub(qmp, this.#directory, timeout)
      this.running = new QemuRunState(qmp, stub)
      const recovered = recover(qmp, stub, this.running, this.vcpuCount)
      if (recovered !== undefined) warnings.push(recovered)
      this.registers = new QemuRegisters(qmp, this.running, this.#directory)
      this.msr = new QemuMsrs(this.registers)
      const code = new CodeMemory(this.memory)
      const points = new Breakpoints(onKvm, code, this.memory.patches)
      this.events = new QemuEvents(qmp, {
        ...{ run: this.running, stub, registers: this.registers, points, code, onKvm },
        vcpuCount: () => this.vcpuCount,
        failed: (error) => {
          this.#gone = error
          // The descriptor would be readable for ever.
          qmp.close()
        },
      })
    } catch (error) {
      host?.close()
      locator?.close()
      qmp.close()
      this.#directory.remove()
      throw error
    }
  }

  get vcpuCount(): number {
    return array(this.#qmp.execute('query-cpus-fast'), 'query-cpus-fast').length
  }

  get details(): Readonly<Record<string, Detail>> {
    return {
      accelerator: this.#accelerator,
      pid: this.#pid,
      qmp: this.#qmp.path,
      memory: DESCRIPTIONS[this.memory.way],
      registers: this.registers.source,
    }
  }

  inject(_vcpu: number, { type }: Injection): void {
    if (type !== 'nmi') throw new MicrovmiError('UNSUPPORTED', `QEMU injects NMIs, no ${type}s`)
    if (this.vcpuCount > 1) throw new MicrovmiError('UNSUPPORTED', 'QEMU injects an NMI into all vCPUs at once')
    this.#qmp.execute('inject-nmi')
  }

  release(): void {
    // Core has disarmed everything and ended its pause; else each call leaves the guest as it found it.
  }

  async close(): Promise<void> {
    this.memory.close()
    this.#qmp.close()
    this.#directory.remove()
  }

  #throwGone(): never {
    throw this.#gone ?? new MicrovmiError('VM_GONE', `QEMU (process ${this.#pid}) has ended`)
  }
}

const DESCRIPTIONS: Readonly<Record<MemoryWay, string>> = {
  shared: 'shared RAM, mapped',
  process_vm: "QEMU's own memory, by process_vm_readv",
  proc: "QEMU's own memory, by /proc/PID/mem",
  qmp: 'QMP pmemsave (slow, reads only)',
}

/** The fastest way into QEMU's process that this user has; none is no failure while there are others. */
function openHostMemory(pid: number, ways: ReadonlySet<MemoryWay>, warnings: string[]): HostMemory | undefined {
  const openers = { process_vm: ProcessMemory, proc: ProcMemory } as const
  let refusal: MicrovmiError | undefined
  for (const way of ['process_vm', 'proc'] as const) {
    if (!ways.has(way)) continue
    try {
      return new openers[way](pid)
    } catch (error) {
      if (!(error instanceof MicrovmiError) || error.code !== 'DENIED') throw error
      refusal ??= error
    }
  }
  if (refusal) warnings.push(refusal.message)
  return undefined
}
