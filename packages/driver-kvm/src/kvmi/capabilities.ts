/** What every VM of the driver has: one whose QEMU allows less cannot be opened. */
export const PROMISES = ['memory.read', 'memory.regions', 'registers.read', 'msr.read', 'pause'] as const

/** What depends on the generation of the protocol, on the processor, and on what QEMU allows. */
export const POSSIBLE = [
  'memory.write',
  'memory.access',
  'registers.write',
  'inject',
  'views',
  'events.cr',
  'events.msr',
  'events.breakpoint',
  'events.int3',
  'events.memory',
  'events.singlestep',
  'events.cpuid',
  'events.descriptor',
  'events.hypercall',
  'reply.deny',
  'reply.value',
  'reply.registers',
  'reply.view',
  'reply.step',
  'reply.emulate',
  'reply.reinject',
  'reply.inject',
] as const
