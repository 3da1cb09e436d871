/** What every HVM and PVH domain has. */
export const PROMISES = [
  'memory.read',
  'memory.write',
  'memory.regions',
  'memory.map',
  'registers.read',
  'registers.write',
  'msr.read',
  'pause',
] as const

/** What depends on the processor, on Xen's version, and on who else monitors the domain. */
export const POSSIBLE = [] as const
