import type { Capability, EventKind } from '@microvmi/core/driver'
import type { ViewState } from './views.ts'

/** What every domain has. */
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

/** What depends on the domain's type, on the processor, on Xen's version, and on who else monitors the domain. */
export const POSSIBLE = [
  'memory.access',
  'memory.alloc',
  'views',
  'inject',
  'events.cr',
  'events.msr',
  'events.breakpoint',
  'events.int3',
  'events.debug',
  'events.descriptor',
  'events.hypercall',
  'events.memory',
  'events.singlestep',
  'events.cpuid',
  'events.io',
  'reply.registers',
  'reply.deny',
  'reply.value',
  'reply.emulate',
  'reply.reinject',
  'reply.inject',
  'reply.step',
  'reply.view',
] as const

/** Why one is not there, and what would help. */
const REASONS: { readonly [Name in (typeof POSSIBLE)[number]]?: string } = {
  'memory.access': 'Xen has rights of pages on Intel’s processors alone',
  'events.memory': 'Xen has rights of pages on Intel’s processors alone',
  'events.singlestep': 'Xen steps vCPUs by the monitor trap flag of Intel’s processors alone',
  'events.io': 'Xen reports accesses to I/O ports from 4.18 on, and lets them pass in PVH domains alone',
  'reply.step': 'Xen steps vCPUs by the monitor trap flag of Intel’s processors alone',
}
const NO_MONITOR = 'this Xen has no such monitor for this domain and processor'
const NO_VIEWS = {
  'not configured':
    'the domain was started without views: write altp2m = "external" in its configuration, and start it anew',
  'not there': 'views need an Intel processor and a Xen that was booted with altp2m=1',
}

/** What was found out about a domain. */
export interface Found {
  readonly kinds: readonly EventKind[]
  readonly hasPageAccess: boolean
  readonly views: ViewState
}

/** What a domain can do, and why not the rest. */
export function capabilitiesOf({ kinds, hasPageAccess, views }: Found): {
  readonly capabilities: readonly Capability[]
  readonly lacks: { readonly [Name in Capability]?: string }
} {
  const hasMonitor = kinds.length > 0
  const hasViews = views === 'on' || views === 'off'
  const canStep = kinds.includes('singlestep')
  const isThere = (name: (typeof POSSIBLE)[number]): boolean => {
    if (name === 'memory.alloc') return true
    if (name === 'views' || name === 'reply.view') return hasMonitor && hasViews
    if (name === 'memory.access' || name === 'events.memory') return hasMonitor && canStep && hasPageAccess
    if (name === 'reply.step') return canStep
    if (name.startsWith('events.')) return kinds.some((kind) => name === `events.${kind}`)
    return hasMonitor
  }
  const lack = (name: (typeof POSSIBLE)[number]): string => {
    if ((name === 'views' || name === 'reply.view') && (views === 'not configured' || views === 'not there')) {
      return NO_VIEWS[views]
    }
    return REASONS[name] ?? NO_MONITOR
  }
  return {
    capabilities: [...PROMISES, ...POSSIBLE.filter(isThere)],
    lacks: Object.fromEntries(POSSIBLE.filter((name) => !isThere(name)).map((name) => [name, lack(name)])),
  }
}

const NEEDS_HVM = 'give the domain type="pvh" or "hvm", where its system can start as such'
/** Those with reasons of their own; the other ones are the monitor's. */
const PV_REASONS: { readonly [Name in (typeof POSSIBLE)[number]]?: string } = {
  'memory.access': `Xen has rights of pages for HVM and PVH domains alone: ${NEEDS_HVM}`,
  'memory.alloc': `Xen adds pages to the physical memory of HVM and PVH domains alone: ${NEEDS_HVM}`,
  views: `Xen has views for HVM and PVH domains alone: ${NEEDS_HVM}`,
  inject: `Xen injects into HVM and PVH domains alone: ${NEEDS_HVM}`,
}
const PV_NO_MONITOR = `Xen monitors HVM and PVH domains alone: ${NEEDS_HVM}`

/** Why a PV domain has nothing of what is possible. */
export const PV_LACKS: { readonly [Name in Capability]?: string } = Object.fromEntries(
  POSSIBLE.map((name) => [name, PV_REASONS[name] ?? PV_NO_MONITOR]),
)
