import {
  MicrovmiError,
  type MsrBackend,
  PAGE_SIZE,
  type RegisterBackend,
  type RegisterChanges,
  type Registers,
} from '@microvmi/core/driver'
import {
  CPU,
  changeRegisters,
  hasExtendedState,
  LAPIC,
  LAPIC_REGISTERS,
  MTRR,
  parseRegisters,
  type RecordRoom,
  roomFor,
  tscAuxOf,
  usesXsave,
  WRITABLE,
  XSAVE,
} from './hvm-context.ts'
import { errno } from './libraries.ts'
import { findRecord, hasInterruptUnderWay, registersIn } from './saved-domain.ts'
import { changeGeneral, isGeneral, VCPU_CONTEXT } from './vcpu-context.ts'
import type { Xen } from './xen.ts'
import { ERRNO, failed } from './xen-errors.ts'

/** A guest without a local APIC, or without XSAVE, has no such record. */
const IS_ABSENT: ReadonlySet<number> = new Set([ERRNO.ENODATA, ERRNO.ENOENT, ERRNO.ENODEV])
/** The record is longer than the room for it (Xen, common/hvm/save.c, hvm_save_one(); xen/errno.h). */
const ENOBUFS = 105

/** Times that a domain is let run for a moment, until no vCPU is about to take an interrupt. */
const TRIES = 50
const waiting = new Int32Array(new SharedArrayBuffer(4))

/** Registers of an HVM or PVH guest: from what Xen saves of one vCPU; written into what it saves of all of them. */
export class HvmRegisters implements RegisterBackend {
  readonly writable = WRITABLE
  readonly #xen: Xen
  readonly #domid: number
  readonly #records = new Map<number, RecordRoom>()

  constructor(xen: Xen, domid: number) {
    this.#xen = xen
    this.#domid = domid
  }

  read(vcpu: number): Registers {
    const cpu = this.cpu(vcpu)
    return parseRegisters(cpu, {
      lapic: this.#record(LAPIC, vcpu),
      lapicRegisters: this.#record(LAPIC_REGISTERS, vcpu),
      mtrr: this.#record(MTRR, vcpu),
      xsave: usesXsave(cpu.view) ? this.#record(XSAVE, vcpu) : undefined,
    })
  }

  write(vcpu: number, changes: RegisterChanges): void {
    for (let tries = 0; tries < TRIES; tries++) {
      if (this.#whilePaused(() => this.#tryWrite(vcpu, changes))) return
      Atomics.wait(waiting, 0, 0, 1)
    }
    const advice = 'resume it, and write the register again'
    throw new MicrovmiError('BUSY', `a vCPU of domain ${this.#domid} is about to take an interrupt: ${advice}`)
  }

  /** False where it would cost the guest an interrupt. */
  #tryWrite(vcpu: number, changes: RegisterChanges): boolean {
    if (isGeneral(changes) && !this.#hasExtendedState(vcpu)) {
      this.#writeGeneral(vcpu, changes)
      return true
    }
    const saved = this.#saved()
    if (hasInterruptUnderWay(saved)) return false
    this.#writeAll(saved, vcpu, changes)
    return true
  }

  /**
   * What needs no more than one vCPU's user registers: nothing else of the guest is touched, but that of its vector
   * registers Xen keeps what x87 and SSE have (vcpu_setup_fpu()).
   */
  #writeGeneral(vcpu: number, changes: RegisterChanges): void {
    const { xc } = this.#xen.libraries
    const context = new Uint8Array(VCPU_CONTEXT)
    if (xc.vcpu_getcontext(this.#xen.handle, this.#domid, vcpu, context) < 0) throw this.#failed('xc_vcpu_getcontext')
    changeGeneral(new DataView(context.buffer), changes)
    if (xc.vcpu_setcontext(this.#xen.handle, this.#domid, vcpu, context) < 0) throw this.#failed('xc_vcpu_setcontext')
  }

  /** Xen loads the registers of all vCPUs. */
  #writeAll(saved: Uint8Array, vcpu: number, changes: RegisterChanges): void {
    const cpu = findRecord(saved, CPU.code, vcpu)
    if (!cpu || cpu.byteLength < CPU.length) {
      throw new MicrovmiError('HYPERVISOR', `Xen saves no registers of vCPU ${vcpu}: is it online?`)
    }
    changeRegisters(cpu, changes)
    const registers = registersIn(saved)
    if (this.#xen.libraries.xc.domain_hvm_setcontext(this.#xen.handle, this.#domid, registers, registers.length) < 0) {
      throw this.#failed('xc_domain_hvm_setcontext')
    }
  }

  /** What Xen saves of the whole domain. */
  #saved(): Uint8Array {
    const { xc } = this.#xen.libraries
    const { handle } = this.#xen
    const size = xc.domain_hvm_getcontext(handle, this.#domid, null, 0)
    if (size < 0) throw this.#failed('xc_domain_hvm_getcontext')
    const context = new Uint8Array(size)
    const length = xc.domain_hvm_getcontext(handle, this.#domid, context, size)
    if (length < 0) throw this.#failed('xc_domain_hvm_getcontext')
    return context.subarray(0, length)
  }

  #hasExtendedState(vcpu: number): boolean {
    if (!usesXsave(this.cpu(vcpu).view)) return false
    const xsave = this.#record(XSAVE, vcpu)
    return xsave !== undefined && hasExtendedState(xsave.view)
  }

  #whilePaused<T>(work: () => T): T {
    const { xc } = this.#xen.libraries
    if (xc.domain_pause(this.#xen.handle, this.#domid) < 0) throw this.#failed('xc_domain_pause')
    try {
      return work()
    } finally {
      xc.domain_unpause(this.#xen.handle, this.#domid)
    }
  }

  /** The record of a vCPU's registers: valid until the next call. */
  cpu(vcpu: number): RecordRoom {
    const record = this.#record(CPU, vcpu)
    if (record) return record
    throw new MicrovmiError('HYPERVISOR', `Xen tells no registers of vCPU ${vcpu}: is it online?`)
  }

  #record(kind: { readonly code: number; readonly length: number }, vcpu: number): RecordRoom | undefined {
    const { code, length } = kind
    const room = this.#records.get(code) ?? this.#room(code, Math.min(length, PAGE_SIZE))
    const { bytes } = room
    const { xc } = this.#xen.libraries
    if (xc.domain_hvm_getcontext_partial(this.#xen.handle, this.#domid, code, vcpu, bytes, bytes.length) >= 0)
      return room
    const number = errno()
    if (IS_ABSENT.has(number)) return undefined
    if (number === ENOBUFS && bytes.length < length) {
      this.#room(code, length)
      return this.#record(kind, vcpu)
    }
    throw this.#failed('xc_domain_hvm_getcontext_partial', number)
  }

  /** Where a record is to be put: a page at first, as libxenctrl maps a buffer of its own at each call for more. */
  #room(code: number, length: number): RecordRoom {
    const room = roomFor(length)
    this.#records.set(code, room)
    return room
  }

  #failed(call: string, number = errno()): MicrovmiError {
    return failed(call, `the registers of domain ${this.#domid}`, number)
  }
}

/** MSRs that are among the registers, by index (Linux, asm/msr-index.h). */
const AMONG_REGISTERS: ReadonlyMap<number, (registers: Registers) => bigint | undefined> = new Map([
  [0x1b, ({ apicBase }: Registers) => apicBase],
  [0x174, ({ sysenterCs }: Registers) => sysenterCs],
  [0x175, ({ sysenterEsp }: Registers) => sysenterEsp],
  [0x176, ({ sysenterEip }: Registers) => sysenterEip],
  [0x277, ({ pat }: Registers) => pat],
  [0xc000_0080, ({ efer }: Registers) => efer],
  [0xc000_0081, ({ star }: Registers) => star],
  [0xc000_0082, ({ lstar }: Registers) => lstar],
  [0xc000_0083, ({ cstar }: Registers) => cstar],
  [0xc000_0084, ({ fmask }: Registers) => fmask],
  [0xc000_0100, ({ fs }: Registers) => fs?.base],
  [0xc000_0101, ({ gs }: Registers) => gs?.base],
  [0xc000_0102, ({ kernelGsBase }: Registers) => kernelGsBase],
])
const TSC_AUX = 0xc000_0103

/** `readMsr` for those that Xen saves. */
export class HvmMsrs implements MsrBackend {
  readonly #registers: HvmRegisters

  constructor(registers: HvmRegisters) {
    this.#registers = registers
  }

  read(vcpu: number, index: number): bigint {
    if (index === TSC_AUX) return tscAuxOf(this.#registers.cpu(vcpu))
    const value = AMONG_REGISTERS.get(index)?.(this.#registers.read(vcpu))
    if (value !== undefined) return value
    const known = [...AMONG_REGISTERS.keys(), TSC_AUX].map((one) => `0x${one.toString(16)}`).join(', ')
    throw new MicrovmiError('UNSUPPORTED', `Xen does not tell MSR 0x${index.toString(16)}; it tells ${known}`)
  }
}
