import { type BackendWith, type Capability, type Detail, MicrovmiError } from '@microvmi/core/driver'
import { GuestRam, type MemoryWay } from './guest-ram.ts'
import type { HostMemory } from './host-memory.ts'
import { LifecycleEvents } from './lifecycle.ts'
import { acceleratorOf, MemoryLocator } from './locate-memory.ts'
import { SavedMemory } from './pmemsave.ts'
import { PrivateDirectory } from './private-directory.ts'
import { ProcMemory } from './proc-memory.ts'
import { ProcessMemory } from './process-memory.ts'
import { array, type Qmp } from './qmp.ts'
import { QemuMsrs, QemuRegisters } from './registers.ts'
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
] as const

/** What depends on how QEMU keeps the guest's memory, and on this user's rights. */
export const POSSIBLE = ['memory.write', 'memory.map'] as const

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
  readonly events: LifecycleEvents
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
    } catch (error) {
      host?.close()
      locator?.close()
      qmp.close()
      throw error
    }
    this.warnings = warnings
    const possible = { 'memory.write': this.memory.isWritable, 'memory.map': this.memory.isMappable }
    this.capabilities = [...PROMISES, ...POSSIBLE.filter((name) => possible[name])]
    this.lacks = {
      'memory.write': "this user may write neither to QEMU's memory nor to its RAM file",
      'memory.map': 'its RAM is not in shared memory: start QEMU with -object memory-backend-memfd,share=on,… for that',
    }
    this.running = new QemuRunState(qmp)
    this.registers = new QemuRegisters(qmp, this.running, this.#directory, timeout)
    this.msr = new QemuMsrs(this.registers)
    this.events = new LifecycleEvents(qmp, (error) => {
      this.#gone = error
      // The descriptor would be readable for ever.
      qmp.close()
    })
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

  release(): void {
    // Nothing of ours is in the guest between two calls: each one leaves it as it found it.
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
