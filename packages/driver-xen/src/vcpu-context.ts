/**
 * One vCPU's registers as struct vcpu_guest_context has them (xen/include/public/arch-x86/xen.h and xen-x86_64.h), the
 * same from Xen 4.11 to 4.20. Of HVM and PVH guests Xen takes the user registers and the debug registers from it.
 */
import type { RegisterChanges } from '@microvmi/core/driver'

export const VCPU_CONTEXT = 5168

/** Members of user_regs and of debugreg, 64 bits each. */
const OFFSETS = {
  ...{ r15: 520, r14: 528, r13: 536, r12: 544, rbp: 552, rbx: 560, r11: 568, r10: 576, r9: 584, r8: 592 },
  ...{ rax: 600, rcx: 608, rdx: 616, rsi: 624, rdi: 632, rip: 648, rflags: 664, rsp: 672 },
} as const
type General = keyof typeof OFFSETS
const NAMES = Object.keys(OFFSETS) as General[]

/** Whether only registers change that `changeGeneral` takes. */
export function isGeneral(changes: RegisterChanges): boolean {
  return Object.entries(changes).every(([name, value]) => value === undefined || name in OFFSETS)
}

/** Writes changes into a context. */
export function changeGeneral(context: DataView, changes: RegisterChanges): void {
  for (const name of NAMES) {
    const value = changes[name]
    if (value !== undefined) context.setBigUint64(OFFSETS[name], value, true)
  }
}
