import { type Capability, MicrovmiError } from '@microvmi/core/driver'
import { POSSIBLE, PROMISES } from './capabilities.ts'
import type { Connection } from './connection.ts'
import type { Command, EventName } from './generation.ts'
import { KVM_ERROR } from './layout.ts'
import { commandId, eventId } from './requests.ts'

type Offered = (typeof PROMISES)[number] | (typeof POSSIBLE)[number]
type Needs = readonly (Command | `event:${EventName}`)[]

const STEPPING = ['controlSinglestep', 'event:singlestep'] as const

/** What of the kernel's each capability is made of. */
const NEEDS: { readonly [Name in Offered]: Needs } = {
  'memory.read': ['readPhysical'],
  'memory.regions': ['readPhysical'],
  'registers.read': ['getRegisters'],
  'msr.read': ['getRegisters'],
  pause: ['pauseVcpu', 'event:pause'],
  'memory.write': ['writePhysical'],
  'memory.access': ['setPageAccess'],
  'registers.write': ['setRegisters', 'getRegisters'],
  // Where the trap that tells of it is not allowed, the kernel refuses the injection.
  inject: ['injectException', 'event:trap'],
  views: ['createView', 'destroyView', 'switchView', 'changeGfn'],
  'events.cr': ['controlEvents', 'controlCr', 'event:cr'],
  'events.msr': ['controlEvents', 'controlMsr', 'event:msr'],
  'events.breakpoint': ['controlEvents', 'event:breakpoint', 'writePhysical', ...STEPPING],
  'events.int3': ['controlEvents', 'event:breakpoint'],
  'events.memory': ['controlEvents', 'event:pageFault', 'setPageAccess'],
  'events.singlestep': STEPPING,
  'events.cpuid': ['controlEvents', 'event:cpuid'],
  'events.descriptor': ['controlEvents', 'event:descriptor'],
  'events.hypercall': ['controlEvents', 'event:hypercall'],
  'reply.deny': ['controlEvents', 'setRegisters'],
  'reply.value': ['controlEvents'],
  'reply.registers': ['setRegisters'],
  'reply.view': ['switchView', 'createView'],
  'reply.step': STEPPING,
  'reply.emulate': ['event:pageFault'],
  'reply.reinject': ['event:breakpoint'],
  'reply.inject': ['injectException', 'event:trap'],
}

/** What KVMi cannot do in any generation, and why. */
const NEVER: { readonly [Name in Capability]?: string } = {
  'memory.map': 'KVMi maps memory on one tree only, through a device of its own; reads go through its socket',
  'memory.alloc': 'the kernel says neither what is in a new page nor how many there may be',
  'msr.write': 'KVMi writes no MSRs',
  'events.debug': "KVMi tells of traps that were injected through it only, never of the guest's own #DB",
  'events.watchpoint': 'KVMi has no debug registers to give: guard the page (memory) instead',
  'events.privcall': 'x86 has no such call',
  'events.io': 'KVMi has no events of I/O ports',
  'events.interrupt': 'KVMi has no events of interrupts',
  'events.lifecycle': 'KVMi ends the connection when the VM is reset, migrated or shut down: calls throw VM_GONE',
}

/** Which capabilities a VM has, and why not the others. */
export interface Offers {
  readonly capabilities: readonly Offered[]
  readonly lacks: { readonly [Name in Capability]?: string }
}

/** What a KVM at the other end offers. */
export interface Features {
  /** Whether the processor can switch between views. */
  readonly views: boolean
  /** Whether the processor can step. */
  readonly singlestep: boolean
}

/**
 * Asks the kernel about every command and event at once. Throws `DENIED` or `UNSUPPORTED` when something is missing
 * that the driver promises.
 */
export function askOffers(connection: Connection, features: Features): Offers {
  const missing = askMissing(connection)
  if (!features.views) missing.set('createView', 'this processor or kernel has no EPT views')
  if (!features.singlestep) missing.set('controlSinglestep', 'this processor cannot step a guest (monitor trap flag)')
  const lacks: { [Name in Capability]?: string } = { ...NEVER }
  const capabilities: Offered[] = []
  for (const name of [...PROMISES, ...POSSIBLE]) {
    const reason = NEEDS[name].map((need) => missing.get(need)).find((one) => one !== undefined)
    if (reason === undefined) capabilities.push(name)
    else lacks[name] = reason
  }
  for (const name of PROMISES) {
    const reason = lacks[name]
    if (reason === undefined) continue
    throw new MicrovmiError('DENIED', `${name} is needed, but ${reason}`)
  }
  return { capabilities, lacks }
}

/** What is not there, and why. */
function askMissing(connection: Connection): Map<string, string> {
  const { generation, requests } = connection
  const needs = [...new Set(Object.values(NEEDS).flat())]
  const missing = new Map<string, string>()
  const asked: { readonly need: string; readonly id: number; readonly isEvent: boolean }[] = []
  for (const need of needs) {
    const event = need.startsWith('event:') ? (need.slice('event:'.length) as EventName) : undefined
    const isThere = event ? generation.events[event] : generation.commands[need as Command]
    if (isThere === undefined) {
      missing.set(need, `generation ${generation.name} of KVMi has no ${event ?? need}`)
      continue
    }
    const id = event ? eventId(generation, event) : commandId(generation, need as Command)
    asked.push({ need, id, isEvent: event !== undefined })
  }
  connection.askAll(
    asked.length,
    (message, index) => {
      const { id = 0, isEvent = false } = asked[index] ?? {}
      if (isEvent) requests.checkEvent(message, id)
      else requests.checkCommand(message, id)
    },
    ({ error }, index) => {
      if (error === 0) return
      const need = asked[index]?.need ?? ''
      const isForbidden = -error === KVM_ERROR.EPERM
      missing.set(need, isForbidden ? `QEMU does not allow KVMi '${need}'` : `this kernel's KVMi has no '${need}'`)
    },
  )
  return missing
}
