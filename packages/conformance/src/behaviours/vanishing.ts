import { type Capability, MicrovmiError } from '@microvmi/core'
import { type Behaviour, behaviours } from '../behaviour.ts'
import { expect, expectEqual } from '../expect.ts'
import type { AnyVm } from '../fixture.ts'
import { eventually } from '../pace.ts'
import { type Stimulus, stimulus } from '../stimulus.ts'
import type { Trial } from '../trial.ts'

/** The VM ends while it is open. These come last: the fixture has to bring up another guest. */
export function vanishing(kinds: readonly string[]): readonly Behaviour[] {
  const own = { session: 'own' } as const

  return behaviours('a VM that goes away', (define) => {
    define(
      'every call says so',
      [],
      async (trial) => {
        const calls = callsOf(trial)
        if (calls.length === 0) trial.skip('nothing can be called on this VM that would ask its hypervisor')
        await vanish(trial)
        for (const [name, call] of calls) await expectGone(trial, name, call)
      },
      own,
    )

    define(
      'the loops over its events end',
      kinds.length > 0 ? [] : ['events.lifecycle'],
      async (trial) => {
        const vm = trial.anyVm
        const kind = kinds.find((one) => vm.capabilities.has(`events.${one}` as Capability) && has(trial, one))
        if (kind === undefined) return trial.skip('there are no events that the fixture can provoke')
        const each = stimulus(trial, kind)
        const ended = goneOf(each, vm)
        await each.moment()
        await vanish(trial)
        const error = await trial.within(ended, `the end of a loop over ${kind} events after the VM has gone`)
        const isGone = error instanceof MicrovmiError && error.code === 'VM_GONE'
        expect(isGone, `a loop over ${kind} events ends with ${String(error)}, not with VM_GONE`)
      },
      own,
    )

    define(
      'it can be closed, and leases end',
      [],
      async (trial) => {
        const vm = trial.anyVm
        const lease = vm.capabilities.has('pause') ? vm.pause() : undefined
        await vanish(trial)
        const isGone = lease ? eventuallyGone(trial, () => vm.runState()) : undefined
        await isGone
        await trial.within(vm.close(), 'close() after the VM has gone')
        expectEqual(vm.closed, true, 'closed after close()')
        lease?.end()
      },
      own,
    )
  })
}

async function vanish(trial: Trial<never>): Promise<void> {
  const vanishing = trial.part(trial.guest.vanish?.bind(trial.guest), 'Guest.vanish()')
  await vanishing()
}

function has(trial: Trial<never>, kind: string): boolean {
  const provoke: Readonly<Record<string, unknown>> = trial.guest.provoke ?? {}
  return provoke[kind] !== undefined
}

/** What a loop over events ends with. */
async function goneOf(each: Stimulus, vm: AnyVm): Promise<unknown> {
  try {
    for await (const _ of each.intercept(vm));
    return undefined
  } catch (error) {
    return error
  }
}

async function eventuallyGone(trial: Trial<never>, call: () => unknown): Promise<unknown> {
  let last: unknown = 'nothing was thrown'
  await eventually(trial.pace.patience, () => {
    try {
      call()
      return false
    } catch (error) {
      last = error
      return true
    }
  })
  return last
}

async function expectGone(trial: Trial<never>, name: string, call: () => unknown): Promise<void> {
  const start = Date.now()
  const error = await eventuallyGone(trial, call)
  const isGone = error instanceof MicrovmiError && error.code === 'VM_GONE'
  expect(isGone, `${name} of a VM that has gone: ${String(error)}, not VM_GONE`)
  expect(Date.now() - start <= 2 * trial.pace.patience, `${name} takes too long to say that the VM has gone`)
}

/** What asks the hypervisor. */
function callsOf(trial: Trial<never>): (readonly [string, () => unknown])[] {
  const vm = trial.anyVm
  const known = trial.guest.memory?.known[0]
  const page = new Uint8Array(Math.min(known?.bytes.length ?? 1, 4096))
  const address = known?.address ?? 0
  const all: readonly (readonly [Capability, string, () => unknown])[] = [
    ['memory.read', 'read()', () => vm.memory.read(address, page)],
    ['memory.read', 'readMany()', () => vm.memory.readMany([{ address, into: page }])],
    ['memory.regions', 'regions()', () => vm.memory.regions()],
    ['registers.read', 'readRegisters()', () => vm.readRegisters(0)],
    ['pause', 'runState()', () => vm.runState()],
    ['pause', 'pause()', () => vm.pause().end()],
  ]
  return all.flatMap(([capability, name, call]) => (vm.capabilities.has(capability) ? [[name, call] as const] : []))
}
