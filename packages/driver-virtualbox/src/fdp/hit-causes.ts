import { type BackendEvent, PAGE_SIZE, pageStart } from '@microvmi/core/driver'
import type { ArmedRequests } from './armed.ts'
import { controlRegisterWritten, isWrmsr, MOVE_LENGTH } from './breakpoints.ts'
import type { FdpClient } from './client.ts'
import { ACCESS, BREAKPOINT } from './layout.ts'
import { knownMsr } from './registers.ts'

/** By the number in the instruction. */
const CONTROL_NAMES = new Map<number | undefined, 'cr0' | 'cr3' | 'cr4'>([
  [0, 'cr0'],
  [3, 'cr3'],
  [4, 'cr4'],
])

/** An event's kind, and its own fields. */
type Told = ToldOf<BackendEvent>
type ToldOf<E> = E extends BackendEvent ? Pick<E, 'kind' | 'fields'> : never

/** Why a vCPU has stopped. */
export interface Cause {
  readonly events: BackendEvent[]
  /** Whether it has to be stepped over the instruction that it stands at: else it would stop there again. */
  readonly step: boolean
}

/**
 * The server says that a vCPU has stopped, not at what: that is worked out here from where it stands and what the
 * instruction there, or the one before, does.
 */
export class HitCauses {
  readonly #client: FdpClient
  readonly #armed: ArmedRequests
  /** What each vCPU's control registers held when they were looked at last. */
  readonly #controls = new Map<string, bigint>()

  constructor(client: FdpClient, armed: ArmedRequests) {
    this.#client = client
    this.#armed = armed
  }

  /** To be called with the VM stopped, before a control register's writes are watched. */
  noteControls(): void {
    for (let vcpu = 0; vcpu < this.#client.vcpuCount(); vcpu++) {
      for (const register of CONTROL_NAMES.values()) {
        this.#controls.set(`${vcpu} ${register}`, this.#client.readRegister(vcpu, register))
      }
    }
  }

  /** Of a vCPU that stands at a breakpoint. */
  of(vcpu: number): Cause {
    const rip = this.#client.readRegister(vcpu, 'rip')
    const physical = Number(this.#client.virtualToPhysical(vcpu, rip))
    const soft = this.#armed.at(BREAKPOINT.soft, physical)
    const executed = this.#armed.executing(physical)
    const isBefore = soft.length > 0 || executed.length > 0
    const msr = this.#msrWrite(vcpu, rip)
    const hasOther = isBefore || msr !== undefined || this.#armed.dataPage() !== undefined
    const written = this.#controlWritten(vcpu, rip, hasOther)
    if (written) return { events: written, step: false }
    if (isBefore) {
      const cr3 = this.#client.readRegister(vcpu, 'cr3')
      const fields = { address: physical, virtualAddress: rip, access: 'x', view: undefined } as const
      const events = [
        ...event(vcpu, this.#armed.matching(soft, rip, cr3), { kind: 'breakpoint', fields: { address: rip } }),
        ...event(vcpu, executed, { kind: 'memory', fields }),
        // During the step over this breakpoint that for the MSR is not in force: this is its only chance.
        ...(msr ?? []),
      ]
      return { events, step: true }
    }
    // The server executes a WRMSR itself before the vCPU goes on.
    if (msr) return { events: msr, step: false }
    return { events: this.#dataAccess(vcpu), step: true }
  }

  /** Of a vCPU that was stepped over an instruction: no breakpoint was in force, so a write to CRn did not stop it. */
  ofStep(vcpu: number): BackendEvent[] {
    if (!this.#armed.has(BREAKPOINT.cr)) return []
    return this.#controlWritten(vcpu, this.#client.readRegister(vcpu, 'rip'), true) ?? []
  }

  /**
   * Where the instruction before `rip` writes a control register that is watched. The vCPU stops behind the write,
   * where it may stop again for something else (`hasOther`): then it is the write only if the register holds something
   * new.
   */
  #controlWritten(vcpu: number, rip: bigint, hasOther: boolean): BackendEvent[] | undefined {
    if (!this.#armed.has(BREAKPOINT.cr)) return undefined
    const number = controlRegisterWritten(this.#readVirtual(vcpu, rip - BigInt(MOVE_LENGTH), MOVE_LENGTH))
    const register = CONTROL_NAMES.get(number)
    if (number === undefined || register === undefined) return undefined
    const armed = this.#armed.at(BREAKPOINT.cr, number)
    if (armed.length === 0) return undefined
    const now = this.#client.readRegister(vcpu, register)
    const key = `${vcpu} ${register}`
    const old = this.#controls.get(key) ?? now
    if (hasOther && old === now) return undefined
    this.#controls.set(key, now)
    return event(vcpu, this.#armed.changing(armed, old, now), { kind: 'cr', fields: { register, old, new: now } })
  }

  /** Where the instruction at `rip` writes an MSR that is watched. */
  #msrWrite(vcpu: number, rip: bigint): BackendEvent[] | undefined {
    if (!this.#armed.has(BREAKPOINT.msr) || !isWrmsr(this.#readVirtual(vcpu, rip, 2))) return undefined
    const msr = Number(this.#client.readRegister(vcpu, 'rcx') & 0xffff_ffffn)
    const armed = this.#armed.at(BREAKPOINT.msr, msr)
    if (armed.length === 0) return undefined
    const low = this.#client.readRegister(vcpu, 'rax') & 0xffff_ffffn
    const high = this.#client.readRegister(vcpu, 'rdx') & 0xffff_ffffn
    const now = (high << 32n) | low
    const old = knownMsr(this.#client, vcpu, msr)
    return event(vcpu, this.#armed.changing(armed, old, now), { kind: 'msr', fields: { msr, old, new: now } })
  }

  /** What is left: a read or a write of the page that is watched. Which byte of it, the server does not tell. */
  #dataAccess(vcpu: number): BackendEvent[] {
    const page = this.#armed.dataPage()
    if (!page) return []
    const access = (page.placement.access & ACCESS.read) !== 0 ? 'rw' : 'w'
    const address = pageStart(page.placement.address)
    return event(vcpu, page.numbers, {
      kind: 'memory',
      fields: { address, virtualAddress: undefined, access, view: undefined },
    })
  }

  /** Guest memory as a vCPU sees it; what is not mapped is zero. */
  #readVirtual(vcpu: number, address: bigint, length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    for (let done = 0; done < length; ) {
      const at = BigInt.asUintN(64, address + BigInt(done))
      const physical = Number(this.#client.virtualToPhysical(vcpu, at))
      const most = Math.min(length - done, PAGE_SIZE - Number(at % BigInt(PAGE_SIZE)))
      if (physical !== 0) this.#client.readPhysical(physical, bytes.subarray(done, done + most))
      done += most
    }
    return bytes
  }
}

function event(vcpu: number, armed: readonly number[], told: Told): BackendEvent[] {
  return armed.length === 0 ? [] : [{ ...told, armed, vcpu, stops: 'vm', complete: true }]
}
