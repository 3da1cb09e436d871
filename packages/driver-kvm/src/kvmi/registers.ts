import {
  MicrovmiError,
  type MsrBackend,
  type RegisterBackend,
  type RegisterChanges,
  type RegisterName,
  type Registers,
} from '@microvmi/core/driver'
import type { PagingRegisters } from '@microvmi/paging'
import type { Answer, Connection } from './connection.ts'
import { kernelError } from './errors.ts'
import {
  ASKED_MSRS,
  changeRegisters,
  decodeRegisters,
  type FurtherMsrs,
  generalRegisters,
  KVM_REGS,
  pagingIn,
} from './kvm-registers.ts'
import { KVM_ERROR, KVM_REGS_LENGTH, KVM_SREGS_LENGTH } from './layout.ts'
import type { Vcpus } from './vcpus.ts'

/** kvmi_get_registers_reply: u32 mode, padding, kvm_regs at 8, kvm_sregs, u32 nmsrs, padding, entries of 16 bytes. */
const REGS = 8
const SREGS = REGS + KVM_REGS_LENGTH
const MSR_COUNT = SREGS + KVM_SREGS_LENGTH
const MSRS = MSR_COUNT + 8

const MSR_NAMES = Object.keys(ASKED_MSRS) as (keyof typeof ASKED_MSRS)[]
const MSR_INDEXES = Object.values(ASKED_MSRS)

/** Registers of a vCPU. Reading needs no pause; writing happens while the vCPU waits in an event. */
export class KvmiRegisters implements RegisterBackend {
  readonly writable: ReadonlySet<RegisterName> = new Set(KVM_REGS)
  readonly #connection: Connection
  readonly #vcpus: Vcpus
  /**
   * What was written to a vCPU that waits: the kernel applies it with the answer (kvmi.rst, SET_REGISTERS), and until
   * then goes on telling the old values.
   */
  readonly #written = new Map<number, DataView>()

  constructor(connection: Connection, vcpus: Vcpus) {
    this.#connection = connection
    this.#vcpus = vcpus
    vcpus.onAnswer = (vcpu) => this.#written.delete(vcpu)
  }

  read(vcpu: number): Registers {
    const answer = this.#ask(vcpu, MSR_INDEXES)
    const registers = decodeRegisters(answer.view, answer.start + REGS, answer.start + SREGS, msrsIn(answer))
    const written = this.#written.get(vcpu)
    return written ? { ...registers, ...generalRegisters(written, 0) } : registers
  }

  /** Applied by the kernel when the vCPU goes on. */
  write(vcpu: number, changes: RegisterChanges): void {
    this.#vcpus.whileHeld(vcpu, () => {
      const regs = this.#written.get(vcpu) ?? this.#regsOf(vcpu)
      const changed = new DataView(regs.buffer.slice(0))
      changeRegisters(changed, changes)
      const bytes = new Uint8Array(changed.buffer)
      const { requests } = this.#connection
      const { error } = this.#connection.ask((message) => requests.setRegisters(message, vcpu, bytes))
      if (error !== 0) throw kernelError(error, `writing registers of vCPU ${vcpu}`)
      this.#written.set(vcpu, changed)
    })
  }

  /** For walks through the guest's page tables. */
  paging(vcpu: number): PagingRegisters {
    const answer = this.#ask(vcpu, [])
    return pagingIn(answer.view, answer.start + SREGS)
  }

  /** One MSR. Throws `UNSUPPORTED` for one that the kernel does not give. */
  msr(vcpu: number, index: number): bigint {
    const answer = this.#ask(vcpu, [index])
    return answer.view.getBigUint64(answer.start + MSRS + 8, true)
  }

  #regsOf(vcpu: number): DataView {
    const { bytes, start } = this.#ask(vcpu, [])
    const copy = new Uint8Array(KVM_REGS_LENGTH)
    bytes.copy(copy, 0, start + REGS, start + SREGS)
    return new DataView(copy.buffer)
  }

  #ask(vcpu: number, msrs: readonly number[]): Answer {
    const { requests } = this.#connection
    const answer = this.#connection.ask(
      (message) => requests.getRegisters(message, vcpu, msrs),
      MSRS + 16 * msrs.length,
    )
    if (answer.error === 0) return answer
    const [index] = msrs
    if (-answer.error === KVM_ERROR.EINVAL && msrs.length === 1 && index !== undefined) {
      throw new MicrovmiError('UNSUPPORTED', `KVM does not tell MSR 0x${index.toString(16)} of this VM`)
    }
    throw kernelError(answer.error, `reading registers of vCPU ${vcpu}`)
  }
}

/** struct kvm_msr_entry: u32 index, u32 reserved, u64 data. They come in the order in which they were asked for. */
function msrsIn({ view, start }: Answer): FurtherMsrs {
  const msrs: Record<string, bigint> = {}
  for (const [place, name] of MSR_NAMES.entries()) msrs[name] = view.getBigUint64(start + MSRS + 16 * place + 8, true)
  return msrs
}

/** `readMsr`. */
export class KvmiMsrs implements MsrBackend {
  readonly #registers: KvmiRegisters

  constructor(registers: KvmiRegisters) {
    this.#registers = registers
  }

  read(vcpu: number, index: number): bigint {
    return this.#registers.msr(vcpu, index)
  }
}
