import type { Backend } from './backend.ts'
import type { Capability } from './capability.ts'
import type { Driver } from './contract.ts'
import { MicrovmiError } from './errors.ts'

/** Where a capability of core's lives in a backend. */
const PARTS: Readonly<Record<string, (backend: Backend) => unknown>> = {
  'memory.read': ({ memory }) => memory,
  'memory.write': ({ memory }) => memory?.write,
  'memory.regions': ({ memory }) => memory?.layout,
  'memory.map': ({ memory }) => memory?.map,
  'memory.access': ({ memory }) => memory?.setAccess && memory.getAccess,
  'memory.alloc': ({ memory }) => memory?.allocate && memory.free,
  'registers.read': ({ registers }) => registers,
  'registers.write': ({ registers }) => registers?.write && registers.writable,
  'msr.read': ({ msr }) => msr,
  'msr.write': ({ msr }) => msr?.write,
  pause: ({ running }) => running,
  inject: ({ inject }) => inject,
  views: ({ views }) => views,
}

/** Throws `CONTRACT_MISMATCH` unless the backend has what its driver promised and what it says itself. */
export function checkBackend(driver: Driver, backend: Backend): void {
  const has = new Set(backend.capabilities)
  for (const capability of driver.promises) {
    if (!has.has(capability)) throw broken(driver, `promises ${capability}, which this VM's backend does not list`)
  }
  const declared = new Set<Capability>([...driver.promises, ...driver.possible])
  for (const capability of has) {
    if (!declared.has(capability)) throw broken(driver, `neither promises ${capability} nor calls it possible`)
    const part = capability.startsWith('events.') ? ({ events }: Backend) => events : PARTS[capability]
    if (part && !part(backend)) throw broken(driver, `lists ${capability} but does not implement it`)
  }
}

function broken(driver: Driver, how: string): MicrovmiError {
  return new MicrovmiError(
    'CONTRACT_MISMATCH',
    `driver '${driver.scheme}' (${driver.package}) ${how}: report this to its authors`,
  )
}
