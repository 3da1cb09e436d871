import { type Injection, MicrovmiError } from '@microvmi/core/driver'
import type { Xen } from './xen.ts'
import { failed } from './xen-errors.ts'

/** X86_EVENTTYPE_* (asm/x86-defns.h; xendevicemodel.h calls them HVMOP_TRAP_*). */
export const TRAP = { interrupt: 0, nmi: 2, exception: 3, softwareException: 6 } as const
/** HVM_DELIVER_NO_ERROR_CODE, X86_EVENT_NO_EC. */
const NO_ERROR_CODE = 0xffff_ffff

/** What Xen is to deliver to a vCPU before it goes on. */
export interface Trap {
  readonly type: number
  readonly vector: number
  readonly errorCode?: number | undefined
  /** Bytes of the instruction, for software exceptions. */
  readonly length?: number | undefined
  /** CR2 for a page fault; what DR6 is to say for a debug exception. */
  readonly extra?: bigint | undefined
}

/** Injects exceptions and NMIs: libxendevicemodel. */
export class Injector {
  readonly #xen: Xen
  readonly #domid: number
  #handle: number | undefined

  constructor(xen: Xen, domid: number) {
    this.#xen = xen
    this.#domid = domid
  }

  inject(vcpu: number, injection: Injection): void {
    if (injection.type === 'interrupt') {
      throw new MicrovmiError(
        'UNSUPPORTED',
        'Xen delivers interrupts through the guest’s own controllers: inject exceptions',
      )
    }
    if (injection.type === 'nmi') this.trap(vcpu, { type: TRAP.nmi, vector: 2 })
    else {
      const { vector, errorCode, cr2 } = injection
      this.trap(vcpu, { type: TRAP.exception, vector, errorCode, extra: cr2 })
    }
  }

  trap(vcpu: number, { type, vector, errorCode = NO_ERROR_CODE, length = 0, extra = 0n }: Trap): void {
    const { devicemodel } = this.#xen.libraries
    this.#handle ??= Number(devicemodel.open(0, 0))
    if (this.#handle === 0) throw failed('xendevicemodel_open', `domain ${this.#domid}`)
    if (devicemodel.inject_event(this.#handle, this.#domid, vcpu, vector, type, errorCode, length, extra) >= 0) return
    const error = failed('xendevicemodel_inject_event', `vCPU ${vcpu} of domain ${this.#domid}`)
    if (error.code !== 'BUSY') throw error
    throw new MicrovmiError('BUSY', `vCPU ${vcpu} has not yet taken what was injected before`, { cause: error })
  }

  close(): void {
    if (this.#handle !== undefined && this.#handle !== 0) this.#xen.libraries.devicemodel.close(this.#handle)
    this.#handle = undefined
  }
}
