/**
 * The numbers of both generations once more, for the peer that plays the kernel, written down from the headers apart
 * from the driver's own: libkvmi's include/linux/kvmi.h, and include/uapi/linux/kvmi.h of the v12 series.
 */

/** What the peer does, by message id. */
export const COMMANDS_A: Readonly<Record<number, string>> = {
  2: 'version',
  3: 'checkCommand',
  4: 'checkEvent',
  5: 'info',
  7: 'pause',
  8: 'vmEvents',
  9: 'events',
  10: 'cr',
  11: 'msr',
  13: 'getRegisters',
  14: 'setRegisters',
  17: 'read',
  18: 'write',
  19: 'inject',
  21: 'pageAccess',
  27: 'commandResponse',
  29: 'maxGfn',
  32: 'switchView',
  43: 'createView',
  44: 'destroyView',
  60: 'changeGfn',
  63: 'singlestep',
}

export const COMMANDS_C: Readonly<Record<number, string>> = {
  2: 'version',
  4: 'checkCommand',
  6: 'checkEvent',
  8: 'info',
  10: 'vmEvents',
  12: 'read',
  14: 'write',
  16: 'pause',
  20: 'pageAccess',
  5: 'events',
  7: 'getRegisters',
  9: 'setRegisters',
  13: 'cr',
  15: 'inject',
  25: 'msr',
  27: 'singlestep',
}

/** Commands whose body begins with a vCPU header. */
export const OF_VCPU: ReadonlySet<string> = new Set([
  'events',
  'cr',
  'msr',
  'getRegisters',
  'setRegisters',
  'inject',
  'switchView',
  'changeGfn',
  'singlestep',
])

export const EVENTS_A: Readonly<Record<string, number>> = {
  unhook: 0,
  cr: 1,
  msr: 2,
  xsetbv: 3,
  breakpoint: 4,
  hypercall: 5,
  pf: 6,
  trap: 7,
  descriptor: 8,
  createVcpu: 9,
  pause: 10,
  singlestep: 11,
  cpuid: 13,
}

export const EVENTS_C: Readonly<Record<string, number>> = {
  unhook: 0,
  pause: 1,
  hypercall: 3,
  breakpoint: 5,
  cr: 7,
  trap: 9,
  xsetbv: 11,
  descriptor: 13,
  msr: 15,
  pf: 17,
  singlestep: 19,
}

export const ENOENT = -2
export const EBUSY = -16
export const EINVAL = -22
export const EPERM = -1
export const EOPNOTSUPP = -95
export const ENOSYS = -1000
