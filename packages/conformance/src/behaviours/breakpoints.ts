import { MicrovmiError, type Vm } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expect, expectBytes } from '../expect.ts'
import type { AnyVm } from '../fixture.ts'
import { eventually } from '../pace.ts'
import { type Stimulus, stimuli } from '../stimulus.ts'
import { anyVm, type Trial } from '../trial.ts'

/** So many bytes around a breakpoint are looked at. */
const AROUND = 8

/** What breakpoints leave to be seen in memory: nothing. */
export const breakpoints = behaviours('breakpoints', (define) => {
  define('are hidden from reads, pieces and windows', ['events.breakpoint', 'memory.read'], async (trial) => {
    for (const { each, address } of placed(trial)) {
      const before = look(trial.vm, address)
      const { intercept } = await hit(trial, each)
      expectBytes(look(trial.vm, address), before, address - AROUND, 'read() of a breakpoint that is armed')
      await expectHidden(trial.anyVm, address, before)
      intercept.close()
      expectBytes(look(trial.vm, address), before, address - AROUND, 'read() of a breakpoint that was disarmed')
      await trial.progress().goesOn('after a breakpoint')
    }
  })

  define(
    'are gone after close',
    ['events.breakpoint', 'memory.read'],
    async (trial) => {
      let { vm } = trial
      for (const { each, address } of placed(trial)) {
        const before = look(vm, address)
        await hit(trial, each, anyVm(vm))
        await vm.close()
        vm = await trial.open()
        expectBytes(look(vm, address), before, address - AROUND, "memory after the breakpoint's session was closed")
        await trial.progress(vm).goesOn("after a breakpoint's session was closed")
      }
    },
    { session: 'own' },
  )

  define(
    'are gone after release',
    ['events.breakpoint', 'memory.read'],
    async (trial) => {
      const [{ each, address }] = placed(trial)
      const before = look(trial.vm, address)
      await hit(trial, each)
      trial.vm.release()
      await trial.vm.close()
      const next = await trial.open()
      expectBytes(look(next, address), before, address - AROUND, 'memory after release()')
      await trial.progress(next).goesOn('after release() with a breakpoint armed')
    },
    { session: 'own' },
  )

  define('survive a write over them', ['events.breakpoint', 'memory.read', 'memory.write'], async (trial) => {
    for (const { each, address } of placed(trial)) {
      const before = look(trial.vm, address)
      const { intercept, again } = await hit(trial, each)
      trial.vm.memory.write(address - AROUND, before)
      expectBytes(look(trial.vm, address), before, address - AROUND, 'read() after a write over a breakpoint')
      await again('after a write over it')
      intercept.close()
      expectBytes(look(trial.vm, address), before, address - AROUND, 'memory behind a breakpoint that was written over')
      await trial.progress().goesOn('after a breakpoint that was written over')
    }
  })
})

interface Placed {
  readonly each: Stimulus
  readonly address: number
}

/** The fixture's breakpoints whose place in memory it knows. */
function placed(trial: Trial<'events.breakpoint'>): [Placed, ...Placed[]] {
  const found = stimuli(trial, 'breakpoint').flatMap((each) => {
    const address = each.provocation.physicalAddress
    return address === undefined ? [] : [{ each, address }]
  })
  const [first, ...others] = found
  if (!first) return trial.skip('the fixture leaves out Guest.provoke.breakpoint.physicalAddress')
  return [first, ...others]
}

/** Arms a breakpoint and waits until it was hit: it is surely there then. */
async function hit(trial: Trial<'events.breakpoint'>, each: Stimulus, vm?: AnyVm) {
  let count = 0
  const intercept = each.handle(
    () => {
      count += 1
    },
    { vm },
  )
  const again = async (when: string): Promise<void> => {
    const before = count
    each.ask()
    const came = await eventually(trial.pace.patience, () => count > before)
    expect(came, `the breakpoint is not hit ${when}`)
  }
  await again('at all')
  return { intercept, again }
}

/** The bytes around an address. */
function look(vm: Vm<'memory.read'>, address: number): Uint8Array {
  const bytes = new Uint8Array(2 * AROUND)
  vm.memory.read(address - AROUND, bytes)
  return bytes
}

async function expectHidden(vm: AnyVm, address: number, expected: Uint8Array): Promise<void> {
  const start = address - AROUND
  const into = new Uint8Array(expected.length)
  vm.memory.readMany([{ address: start, into }])
  expectBytes(into, expected, start, 'readMany() of a breakpoint that is armed')
  if (vm.capabilities.has('memory.regions')) {
    for await (const piece of vm.memory.pieces({ within: { start, length: expected.length } })) {
      const offset = piece.address - start
      const bytes = piece.bytes ?? new Uint8Array(piece.length)
      expectBytes(bytes, expected.subarray(offset, offset + piece.length), piece.address, 'a piece with a breakpoint')
    }
  }
  if (!vm.capabilities.has('memory.map')) return
  try {
    vm.memory.map(start, expected.length, (window) => {
      expectBytes(window, expected, start, 'a window onto a breakpoint that is armed')
    })
  } catch (error) {
    // The other right answer: there is no window onto such a page.
    if (!(error instanceof MicrovmiError && error.code === 'BUSY')) throw error
  }
}
