/**
 * One vCPU's registers as struct vcpu_guest_context has them (xen/include/public/arch-x86/xen.h and xen-x86_64.h), the
 * same from Xen 4.11 to 4.20. Of HVM and PVH guests Xen takes the user registers and the debug registers from it. Of PV
 * guests of 64 bits it is all that Xen tells.
 */
import type { RegisterChanges, RegisterName, Registers, Segment } from '@microvmi/core/driver'

export const VCPU_CONTEXT = 5168

/** Members of user_regs, 64 bits each. */
const OFFSETS = {
  ...{ r15: 520, r14: 528, r13: 536, r12: 544, rbp: 552, rbx: 560, r11: 568, r10: 576, r9: 584, r8: 592 },
  ...{ rax: 600, rcx: 608, rdx: 616, rsi: 624, rdi: 632, rip: 648, rflags: 664, rsp: 672 },
} as const
type General = keyof typeof OFFSETS
const NAMES = Object.keys(OFFSETS) as General[]

/** Members of ctrlreg and debugreg, 64 bits each. */
const FURTHER = {
  ...{ cr0: 4984, cr2: 5000, cr3: 5008, cr4: 5016 },
  ...{ dr0: 5048, dr1: 5056, dr2: 5064, dr3: 5072, dr6: 5096, dr7: 5104 },
} as const
type Further = keyof typeof FURTHER
const FURTHER_NAMES = Object.keys(FURTHER) as Further[]

const SELECTORS = { cs: 656, ss: 680, es: 688, ds: 696, fs: 704, gs: 712 } as const
const FS_BASE = 5144
const GS_BASE_KERNEL = 5152
const GS_BASE_USER = 5160
const FLAGS = 512
/** VGCF_in_kernel */
const IN_KERNEL = 1 << 2

/**
 * RFLAGS bit 1, which every processor has set (Intel SDM volume 1, figure 3-8). In what Xen has saved it may be clear: it
 * masks a vCPU's flags on the way into a system call (Xen 4.17, x86_64/entry.S, switch_to_kernel).
 */
const ALWAYS_SET = 2n

/** Registers that `changeGeneral` takes. */
export const GENERAL: ReadonlySet<RegisterName> = new Set<RegisterName>(NAMES)

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

/**
 * The registers of a PV guest's vCPU. CR3 is ctrlreg[3], the kernel's table, in user mode too: the kernel reaches its
 * programs' memory by it, and the table for user mode, ctrlreg[1], has a part of what it has. xen_pfn_to_cr3() of 64
 * bits is a machine address as it is. Of segments Xen tells the selectors, and the bases of FS and GS.
 */
export function parsePvRegisters(context: DataView): Registers {
  const word = (offset: number) => context.getBigUint64(offset, true)
  const general = {} as Record<General, bigint>
  for (const name of NAMES) general[name] = word(OFFSETS[name])
  const further = {} as Record<Further, bigint>
  for (const name of FURTHER_NAMES) further[name] = word(FURTHER[name])
  const segment = (name: keyof typeof SELECTORS, base?: bigint): Segment => {
    return { selector: context.getUint16(SELECTORS[name], true), base, limit: undefined, attributes: undefined }
  }
  const isInKernel = (context.getUint32(FLAGS, true) & IN_KERNEL) !== 0
  return {
    architecture: 'x86-64',
    ...general,
    rflags: general.rflags | ALWAYS_SET,
    ...further,
    ...{ cs: segment('cs'), ds: segment('ds'), es: segment('es'), ss: segment('ss') },
    fs: segment('fs', word(FS_BASE)),
    gs: segment('gs', word(isInKernel ? GS_BASE_KERNEL : GS_BASE_USER)),
    // What SWAPGS would exchange it for.
    kernelGsBase: word(isInKernel ? GS_BASE_USER : GS_BASE_KERNEL),
  }
}
