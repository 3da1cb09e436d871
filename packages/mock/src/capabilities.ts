import type { Capability } from '@microvmi/core/driver'

/** Every kind of event that core knows. */
export const EVENT_KINDS = [
  'cr',
  'msr',
  'breakpoint',
  'int3',
  'watchpoint',
  'memory',
  'singlestep',
  'cpuid',
  'descriptor',
  'debug',
  'hypercall',
  'privcall',
  'io',
  'interrupt',
  'lifecycle',
] as const

/** Every capability that core knows: a guest has them all, less those it was told to lack. */
export const CAPABILITIES = [
  'memory.read',
  'memory.write',
  'memory.regions',
  'memory.map',
  'memory.access',
  'memory.alloc',
  'registers.read',
  'registers.write',
  'msr.read',
  'msr.write',
  'pause',
  'inject',
  'views',
  'events.cr',
  'events.msr',
  'events.breakpoint',
  'events.int3',
  'events.watchpoint',
  'events.memory',
  'events.singlestep',
  'events.cpuid',
  'events.descriptor',
  'events.debug',
  'events.hypercall',
  'events.privcall',
  'events.io',
  'events.interrupt',
  'events.lifecycle',
  'reply.deny',
  'reply.registers',
  'reply.value',
  'reply.view',
  'reply.step',
  'reply.emulate',
  'reply.reinject',
  'reply.inject',
] as const satisfies readonly Capability[]

/** What the type of the mock's Vm promises: core's own capabilities, not those that others add. */
export type MockCapability = (typeof CAPABILITIES)[number]

/** What a VM that lacks these has: without reading memory, nothing of memory; without reading registers, no writing. */
export function capabilitiesWithout(lacking: readonly Capability[]): MockCapability[] {
  const without = new Set<Capability>(lacking)
  return CAPABILITIES.filter((capability) => {
    if (without.has(capability)) return false
    if (capability.startsWith('memory.')) return !without.has('memory.read')
    if (capability === 'registers.write') return !without.has('registers.read')
    if (capability === 'msr.write') return !without.has('msr.read')
    return true
  })
}
