import { badArgument, type Driver, MicrovmiError, type OpenRequest, type VmListing } from '@microvmi/core/driver'
import { MockBackend } from './backend.ts'
import { CAPABILITIES, type MockCapability } from './capabilities.ts'
import { findGuest, guests } from './guests.ts'
import { Host } from './host.ts'

/** The guest that is there without being made. */
const DEMO = 'demo'

/** How the guest `demo` is made. A guest from `createGuest` is as it was made, and takes none of these. */
export interface MockOptions {
  /** Default 1. */
  readonly seed?: number
  /** Default 2. */
  readonly vcpus?: number
  /** Bytes of RAM. Default 16 MiB. */
  readonly memory?: number
  /** Instructions a second and vCPU. Default 1,000,000. */
  readonly speed?: number
}

/**
 * The driver of guests in memory: those from `createGuest`, and `demo`, of which each `open` makes its own. It runs in
 * real time.
 *
 * The type promises everything that core knows, so that apps compile. What a guest was made without is found at open,
 * as with any driver's possible capabilities.
 */
export const mock: Driver<MockOptions, MockCapability, MockCapability> = {
  scheme: 'mock',
  package: '@microvmi/mock 0.1.0',
  contract: { major: 0, minor: 1 },
  // None at run time: a guest can be made to lack any.
  promises: [],
  possible: CAPABILITIES,
  options: { seed: 'number', vcpus: 'number', memory: 'number', speed: 'number' },
  probe: async () => ({ usable: true, details: { guests: String(guests.size) } }),
  list: async () => listings(),
  open,
}

function listings(): VmListing[] {
  const hosts = [...guests].filter((host) => !host.isGone)
  const listed = hosts.map((host): VmListing => {
    const { name } = host.options
    const unique = hosts.filter(({ options }) => options.name === name).length === 1
    const state = host.machine.running ? 'running' : host.machine.alive ? 'paused' : 'stopped'
    return { vm: unique ? name : host.id, name, id: host.id, state }
  })
  if (hosts.some(({ options }) => options.name === DEMO)) return listed
  return [...listed, { vm: DEMO, name: DEMO, id: DEMO, state: 'running' }]
}

async function open({ vm, options, timeout, signal }: OpenRequest<MockOptions>): Promise<MockBackend> {
  const host = findGuest(vm)
  if (host) {
    const given = Object.keys(options)
    if (given.length > 0) throw badArgument(`guest '${vm}' was made already: ${given.join(', ')} cannot change it`)
    await delay(host.options.openDelay, vm, timeout, signal)
    if (host.options.openError) throw host.options.openError
    host.exchange()
    return new MockBackend(host)
  }
  if (vm !== DEMO) {
    const names = listings().map((listing) => listing.vm)
    throw new MicrovmiError('VM_NOT_FOUND', `no guest '${vm}' was made; there are ${names.join(', ')}`)
  }
  const demo = new Host({ highMemory: 0, ...options, name: DEMO, clock: 'real' })
  return new MockBackend(demo, () => demo.clock.stop())
}

/** A slow open: it ends early when the deadline passes or the caller gives up. */
async function delay(
  milliseconds: number,
  vm: string,
  timeout: number,
  signal: OpenRequest<MockOptions>['signal'],
): Promise<void> {
  if (milliseconds === 0) return
  await new Promise<void>((resolve, reject) => {
    const late = milliseconds > timeout
    const end = (settle: () => void): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
      settle()
    }
    const onAbort = () =>
      end(() => reject(new MicrovmiError('ABORTED', `opening mock:${vm} was aborted`, { cause: signal?.reason })))
    const onTime = () => {
      if (late) reject(new MicrovmiError('TIMEOUT', `mock:${vm} did not answer within ${timeout} ms`))
      else resolve()
    }
    const timer = setTimeout(() => end(onTime), Math.min(milliseconds, timeout))
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}
