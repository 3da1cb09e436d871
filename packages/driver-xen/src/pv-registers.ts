import {
  MicrovmiError,
  type MsrBackend,
  type RegisterBackend,
  type RegisterChanges,
  type Registers,
} from '@microvmi/core/driver'
import { errno } from './libraries.ts'
import { changeGeneral, GENERAL, parsePvRegisters, VCPU_CONTEXT } from './vcpu-context.ts'
import type { Xen } from './xen.ts'
import { ERRNO, failed } from './xen-errors.ts'

/** Registers of a PV guest of 64 bits: what Xen keeps of each vCPU for its guest, read and written as a whole. */
export class PvRegisters implements RegisterBackend {
  /** Xen refuses other page tables, and corrects control and debug registers as it sees fit. */
  readonly writable = GENERAL
  readonly #xen: Xen
  readonly #domid: number
  readonly #context = new Uint8Array(VCPU_CONTEXT)
  readonly #view = new DataView(this.#context.buffer)

  constructor(xen: Xen, domid: number) {
    this.#xen = xen
    this.#domid = domid
  }

  read(vcpu: number): Registers {
    this.#get(vcpu)
    return parsePvRegisters(this.#view)
  }

  write(vcpu: number, changes: RegisterChanges): void {
    const { xc } = this.#xen.libraries
    const { handle } = this.#xen
    // What is written back is all of the vCPU: it must not have run in between.
    if (xc.domain_pause(handle, this.#domid) < 0) throw this.#failed('xc_domain_pause')
    try {
      this.#get(vcpu)
      changeGeneral(this.#view, changes)
      if (xc.vcpu_setcontext(handle, this.#domid, vcpu, this.#context) < 0) throw this.#failed('xc_vcpu_setcontext')
    } finally {
      xc.domain_unpause(handle, this.#domid)
    }
  }

  #get(vcpu: number): void {
    const { xc } = this.#xen.libraries
    if (xc.vcpu_getcontext(this.#xen.handle, this.#domid, vcpu, this.#context) >= 0) return
    const number = errno()
    if (number !== ERRNO.ENODATA) throw this.#failed('xc_vcpu_getcontext', number)
    throw new MicrovmiError('HYPERVISOR', `Xen tells no registers of vCPU ${vcpu}: the guest has not brought it up yet`)
  }

  #failed(call: string, number = errno()): MicrovmiError {
    return failed(call, `the registers of domain ${this.#domid}`, number)
  }
}

/** MSRs that Xen keeps among a PV guest's registers, by index (Linux, asm/msr-index.h). */
const AMONG_REGISTERS: ReadonlyMap<number, (registers: Registers) => bigint | undefined> = new Map([
  [0xc000_0100, ({ fs }: Registers) => fs?.base],
  [0xc000_0101, ({ gs }: Registers) => gs?.base],
  [0xc000_0102, ({ kernelGsBase }: Registers) => kernelGsBase],
])

/** `readMsr` for those that are a PV guest's own: the others are Xen's. */
export class PvMsrs implements MsrBackend {
  readonly #registers: PvRegisters

  constructor(registers: PvRegisters) {
    this.#registers = registers
  }

  read(vcpu: number, index: number): bigint {
    const value = AMONG_REGISTERS.get(index)?.(this.#registers.read(vcpu))
    if (value !== undefined) return value
    const known = [...AMONG_REGISTERS.keys()].map((one) => `0x${one.toString(16)}`).join(', ')
    throw new MicrovmiError(
      'UNSUPPORTED',
      `Xen does not tell MSR 0x${index.toString(16)} of a PV domain; it tells ${known}`,
    )
  }
}
