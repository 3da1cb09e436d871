import { MicrovmiError } from '@microvmi/core/driver'

/**
 * What differs between the versions of Xen, as their headers have it (xen/include/public at the tags RELEASE-4.11.0 to
 * RELEASE-4.20.4). Everything here is compared with those headers by versions.test.ts; what is the same in all of them
 * stands beside the code that uses it.
 */
export interface Abi {
  /** Xen's version, for messages. */
  readonly xen: string
  /** VM_EVENT_INTERFACE_VERSION (vm_event.h): every request and response carries it. */
  readonly vmEvent: number
  /** XEN_DOMCTL_INTERFACE_VERSION (domctl.h). */
  readonly domctl: number
  /** sizeof(vm_event_st) (vm_event.h): a slot of the ring. */
  readonly slotLength: number
  /** sizeof(struct xen_domctl_getdomaininfo) (domctl.h), and its member arch_config. */
  readonly domainInfo: { readonly length: number; readonly archConfig: number }
  /** Members of struct vm_event_debug (vm_event.h), from the start of a slot. */
  readonly debug: { readonly length: number; readonly type: number; readonly pending: number | undefined }
  /** Where struct vm_event_regs_x86 (vm_event.h) has what is not at the same place in all versions. */
  readonly registers: EventRegisterLayout
  /** Whether responses know VM_EVENT_FLAG_FAST_SINGLESTEP (vm_event.h). */
  readonly hasFastStep: boolean
  /** Whether there are VM_EVENT_REASON_IO_INSTRUCTION (vm_event.h) and xc_monitor_io (xenctrl.h). */
  readonly hasIo: boolean
  /**
   * Whether control register and MSR writes wait for their response only after XEN_DOMCTL_MONITOR_OP_CONTROL_REGISTERS
   * (domctl.h). Before 4.14 they always do: also those of asynchronous events, whose writes are then late
   * (arch/x86/hvm/monitor.c).
   */
  readonly deferralIsOption: boolean
}

/** Offsets from the start of struct vm_event_regs_x86; the general registers up to rflags are the same everywhere. */
export interface EventRegisterLayout {
  readonly length: number
  readonly dr6: number | undefined
  readonly dr7: number
  readonly rip: number
  readonly cr0: number
  readonly cr2: number
  readonly cr3: number
  readonly cr4: number
  readonly sysenterCs: number
  readonly sysenterEsp: number
  readonly sysenterEip: number
  readonly efer: number
  readonly star: number
  readonly lstar: number
  readonly fsBase: number
  readonly gsBase: number
  /** cs_base, ss_base, ds_base, es_base: four times 32 bits. */
  readonly bases: number | undefined
  /** cs, ss, ds, es, fs, gs: limit and attributes, six times 32 bits. */
  readonly segments: number | undefined
  readonly shadowGs: number | undefined
  /** cs_sel, ss_sel, ds_sel, es_sel, fs_sel, gs_sel: six times 16 bits. */
  readonly selectors: number | undefined
  readonly gdt: { readonly base: number; readonly limit: number } | undefined
}

/** Interface version 3: rflags, dr7, rip, and so on to gs_base, each 64 bits. */
const REGISTERS_3: EventRegisterLayout = {
  ...{ length: 256, dr6: undefined, dr7: 136, rip: 144, cr0: 152, cr2: 160, cr3: 168, cr4: 176 },
  ...{ sysenterCs: 184, sysenterEsp: 192, sysenterEip: 200, efer: 208, star: 216, lstar: 224 },
  ...{ fsBase: 232, gsBase: 240, bases: undefined, segments: undefined, shadowGs: undefined, selectors: undefined },
  gdt: undefined,
}

/** From interface version 4 on dr6 stands before dr7, and lstar is followed by `more` bytes before the segments. */
function registersFrom4(more: number, gdt: EventRegisterLayout['gdt']): EventRegisterLayout {
  const bases = 240 + more
  return {
    ...{ dr6: 136, dr7: 144, rip: 152, cr0: 160, cr2: 168, cr3: 176, cr4: 184 },
    ...{ sysenterCs: 192, sysenterEsp: 200, sysenterEip: 208, efer: 216, star: 224, lstar: 232 },
    ...{ bases, fsBase: bases + 16, gsBase: bases + 24, segments: bases + 32, shadowGs: bases + 56 },
    selectors: bases + (gdt ? 66 : 64),
    length: bases + 80,
    gdt,
  }
}

const REGISTERS_4 = registersFrom4(0, undefined)
/** gdtr_base before the segments, gdtr_limit before the selectors. */
const REGISTERS_5 = registersFrom4(8, { base: 240, limit: 312 })
/** npt_base and vmtrace_pos behind gdtr_base. */
const REGISTERS_7 = registersFrom4(24, { base: 240, limit: 328 })

const OLD_DEBUG = { length: 32, type: 36, pending: undefined }
const DEBUG = { length: 40, type: 44, pending: 32 }
const OLD_INFO = { length: 104, archConfig: 96 }
/** gpaddr_bits and padding before arch_config. */
const INFO = { length: 112, archConfig: 104 }

/** The slot's registers come last, at offset 56. */
const DATA = 56

function version(
  minor: number,
  vmEvent: number,
  domctl: number,
  registers: EventRegisterLayout,
): readonly [number, Abi] {
  const abi: Abi = {
    xen: `4.${minor}`,
    vmEvent,
    domctl,
    slotLength: DATA + registers.length,
    domainInfo: minor < 16 ? OLD_INFO : INFO,
    debug: vmEvent < 6 ? OLD_DEBUG : DEBUG,
    registers,
    hasFastStep: vmEvent >= 6,
    hasIo: minor >= 18,
    deferralIsOption: vmEvent >= 6,
  }
  return [minor, abi]
}

const VERSIONS: ReadonlyMap<number, Abi> = new Map([
  version(11, 3, 0x10, REGISTERS_3),
  version(12, 4, 0x11, REGISTERS_4),
  version(13, 5, 0x12, REGISTERS_5),
  version(14, 6, 0x12, REGISTERS_5),
  version(15, 7, 0x13, REGISTERS_7),
  version(16, 7, 0x14, REGISTERS_7),
  version(17, 7, 0x15, REGISTERS_7),
  version(18, 7, 0x16, REGISTERS_7),
  version(19, 7, 0x17, REGISTERS_7),
  version(20, 7, 0x17, REGISTERS_7),
])

/** Xen's version numbers as hypercall `xen_version` gives them. */
export interface XenVersion {
  readonly major: number
  readonly minor: number
  /** Such as `.3`, and what the distribution has added. */
  readonly extra: string
}

/** The ABI of a version. Throws `DRIVER_UNAVAILABLE` for one whose headers this driver does not know. */
export function abiOf({ major, minor, extra }: XenVersion): Abi {
  const abi = major === 4 ? VERSIONS.get(minor) : undefined
  if (abi) return abi
  throw new MicrovmiError(
    'DRIVER_UNAVAILABLE',
    `this is Xen ${major}.${minor}${extra}; the driver knows the interfaces of 4.11 to 4.20, and does not guess others`,
  )
}

/** The minor versions of Xen 4 that are known, newest first. */
export const KNOWN_MINORS: readonly number[] = [...VERSIONS.keys()].reverse()
