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
export const POSSIBLE = [
  'inject',
  'events.cr',
  'events.msr',
  'events.breakpoint',
  'events.int3',
  'events.debug',
  'events.descriptor',
  'events.hypercall',
  'reply.registers',
  'reply.deny',
  'reply.value',
  'reply.emulate',
  'reply.reinject',
  'reply.inject',
] as const
