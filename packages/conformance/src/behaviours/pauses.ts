import type { PauseLease } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expectEqual, expectThrows } from '../expect.ts'
import type { Trial } from '../trial.ts'

const REPEATED = 50

/** `pause`: counted leases. */
export const pauses = behaviours('pause', (define) => {
  define('the guest stands still until the lease ends', ['pause'], async (trial) => {
    const { vm } = trial
    const progress = trial.progress()
    requireRunning(trial)
    await progress.goesOn('before a pause')
    const lease = take(trial)
    expectEqual(vm.runState(), 'paused', 'the run state under a lease')
    await progress.standsStill('while it is paused')
    lease.end()
    expectEqual(vm.runState(), 'running', 'the run state after the lease')
    await progress.goesOn('after a pause')
  })

  define('paused twice, it goes on after the second end', ['pause'], async (trial) => {
    const progress = trial.progress()
    requireRunning(trial)
    await progress.goesOn('before two pauses')
    const [first, second] = [take(trial), take(trial)]
    second.end()
    await progress.standsStill('while one of two leases is held')
    expectEqual(trial.vm.runState(), 'paused', 'the run state under the other lease')
    first.end()
    await progress.goesOn('after two pauses')
    expectEqual(trial.vm.runState(), 'running', 'the run state after both leases')
  })

  define('a lease is ended once, and by its owner only', ['pause'], async (trial) => {
    const progress = trial.progress()
    requireRunning(trial)
    await progress.goesOn('before two pauses')
    const mine = take(trial)
    mine.end()
    const theirs = take(trial)
    mine.end()
    mine[Symbol.dispose]()
    await progress.standsStill("when another's lease was ended twice")
    theirs[Symbol.dispose]()
    await progress.goesOn('after both leases')
  })

  define('fifty pauses in a row', ['pause'], async (trial) => {
    const { vm } = trial
    const progress = trial.progress()
    requireRunning(trial)
    for (let times = 1; times <= REPEATED; times++) {
      const lease = vm.pause()
      try {
        expectEqual(vm.runState(), 'paused', `the run state under lease ${times}`)
      } finally {
        lease.end()
      }
    }
    await progress.goesOn(`after ${REPEATED} pauses`)
    const leases = Array.from({ length: REPEATED }, () => take(trial))
    await progress.standsStill(`while ${REPEATED} leases are held`)
    for (const lease of leases) lease.end()
    await progress.goesOn(`after ${REPEATED} leases at a time`)
  })

  define('a lease leaves the run state as it found it', ['pause'], async (trial) => {
    const { vm } = trial
    const progress = trial.progress()
    requireRunning(trial)
    await progress.goesOn('before it is stopped')
    vm.setRunState('paused')
    trial.afterwards(() => vm.setRunState('running'))
    for (let times = 0; times < 2; times++) {
      const lease = take(trial)
      lease.end()
      expectEqual(vm.runState(), 'paused', 'the run state after a lease on a VM that was paused before')
    }
    await progress.standsStill('after a lease on a VM that was paused before')
    vm.setRunState('running')
    await progress.goesOn('after setRunState()')
  })

  define(
    'close ends the leases',
    ['pause'],
    async (trial) => {
      const { vm } = trial
      requireRunning(trial)
      await trial.progress().goesOn('before a pause')
      vm.pause()
      const lease = vm.pause()
      await vm.close()
      lease.end()
      const next = await trial.open()
      await trial.progress(next).goesOn('after a close with leases held')
      expectEqual(next.runState(), 'running', 'the run state after a close with leases held')
    },
    { session: 'own' },
  )
})

/** `setRunState`. */
export const runStates = behaviours('run state', (define) => {
  define('stops and starts the guest', ['pause'], async (trial) => {
    const { vm } = trial
    const progress = trial.progress()
    requireRunning(trial)
    await progress.goesOn('before it is stopped')
    trial.afterwards(() => vm.setRunState('running'))
    for (let times = 0; times < 2; times++) {
      vm.setRunState('paused')
      vm.setRunState('paused')
      expectEqual(vm.runState(), 'paused', "the run state after setRunState('paused')")
      await progress.standsStill("after setRunState('paused')")
      vm.setRunState('running')
      vm.setRunState('running')
      expectEqual(vm.runState(), 'running', "the run state after setRunState('running')")
      await progress.goesOn("after setRunState('running')")
    }
  })

  define('is refused while a lease is held', ['pause'], async (trial) => {
    const { vm } = trial
    const progress = trial.progress()
    requireRunning(trial)
    await progress.goesOn('before a pause')
    const lease = take(trial)
    expectThrows('BUSY', 'setRunState() while a lease is held', () => vm.setRunState('running'))
    await progress.standsStill('after a setRunState() that was refused')
    lease.end()
    vm.setRunState('paused')
    trial.afterwards(() => vm.setRunState('running'))
    await progress.standsStill("after setRunState('paused') behind a lease")
  })

  define(
    'outlasts the session',
    ['pause'],
    async (trial) => {
      requireRunning(trial)
      await trial.progress().goesOn('before it is stopped')
      trial.vm.setRunState('paused')
      await trial.vm.close()
      const next = await trial.open()
      trial.afterwards(() => next.setRunState('running'))
      expectEqual(next.runState(), 'paused', 'the run state that the session before has set')
      await trial.progress(next).standsStill('though the session before has stopped it')
      next.setRunState('running')
      await trial.progress(next).goesOn("after setRunState('running') of another session")
    },
    { session: 'own' },
  )

  define('is the same after every other call', ['pause'], (trial) => {
    const { vm } = trial
    requireRunning(trial)
    trial.afterwards(() => vm.setRunState('running'))
    for (const state of ['running', 'paused'] as const) {
      vm.setRunState(state)
      for (const [name, call] of callsOf(trial)) {
        call()
        expectEqual(vm.runState(), state, `the run state after ${name} on a VM that is ${state}`)
      }
    }
  })
})

/** Skips unless the guest runs. */
function requireRunning(trial: Trial<'pause'>): void {
  if (trial.vm.runState() !== 'running') trial.skip('the guest does not run')
}

function take(trial: Trial<'pause'>): PauseLease {
  const lease = trial.vm.pause()
  trial.afterwards(() => lease.end())
  return lease
}

/** What can be called on this VM without harm. */
function callsOf(trial: Trial<'pause'>): (readonly [string, () => unknown])[] {
  const vm = trial.anyVm
  const has = (...names: Parameters<typeof vm.capabilities.has>) => names.every((name) => vm.capabilities.has(name))
  const calls: (readonly [string, () => unknown])[] = []
  const [known] = trial.guest.memory?.known ?? []
  const scratch = trial.guest.memory?.scratch
  const byte = new Uint8Array(1)
  if (has('memory.read') && known) calls.push(['read()', () => vm.memory.read(known.address, byte)])
  if (has('memory.write') && scratch) {
    calls.push([
      'write()',
      () => {
        vm.memory.read(scratch.address, byte)
        vm.memory.write(scratch.address, byte)
      },
    ])
  }
  if (has('memory.regions')) calls.push(['regions()', () => vm.memory.regions()])
  if (has('registers.read')) calls.push(['readRegisters()', () => vm.readRegisters(vm.vcpuCount - 1)])
  const hasEfer = trial.guest.registers?.absent?.includes('efer') !== true
  if (has('msr.read') && hasEfer) calls.push(['readMsr()', () => vm.readMsr(0, 0xc000_0080)])
  calls.push(['a lease', () => vm.pause().end()])
  return calls
}
