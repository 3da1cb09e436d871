import { MicrovmiError, type MsrBackend, type Registers } from '@microvmi/core/driver'
import type { QemuRegisters } from './registers.ts'

/** MSRs that are among the registers, by index (Linux, asm/msr-index.h). */
const MSRS: Readonly<Record<number, (registers: Registers) => bigint | undefined>> = {
  27: ({ apicBase }) => apicBase,
  372: ({ sysenterCs }) => sysenterCs,
  373: ({ sysenterEsp }) => sysenterEsp,
  374: ({ sysenterEip }) => sysenterEip,
  631: ({ pat }) => pat,
  3221225600: ({ efer }) => efer,
  3221225601: ({ star }) => star,
  3221225602: ({ lstar }) => lstar,
  3221225603: ({ cstar }) => cstar,
  3221225604: ({ fmask }) => fmask,
  3221225728: ({ fs }) => fs?.base,
  3221225729: ({ gs }) => gs?.base,
  3221225730: ({ kernelGsBase }) => kernelGsBase,
}

/** An MSR's value, where it is among the registers. */
export function knownMsr(index: number, registers: () => Registers): bigint | undefined {
  return MSRS[index]?.(registers())
}

/** `readMsr` for those that are among the registers. */
export class QemuMsrs implements MsrBackend {
  readonly #registers: QemuRegisters

  constructor(registers: QemuRegisters) {
    this.#registers = registers
  }

  read(vcpu: number, index: number): bigint {
    const value = knownMsr(index, () => this.#registers.read(vcpu))
    if (value !== undefined) return value
    const known = Object.keys(MSRS).map((known) => `0x${Number(known).toString(16)}`)
    throw new MicrovmiError(
      'UNSUPPORTED',
      `QEMU does not tell MSR 0x${index.toString(16)}; it tells ${known.join(', ')}`,
    )
  }
}
