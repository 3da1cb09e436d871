import type { VmBase } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expect, expectEqual, expectThrows } from '../expect.ts'
import type { Trial } from '../trial.ts'

/** A model-specific register that every processor has (Intel SDM volume 4, table 2-2). */
const EFER = 0xc000_0080

/** `close` and `release`. */
export const closing = behaviours('closing', (define) => {
  const own = { session: 'own' } as const

  define(
    'after it every member throws CLOSED',
    [],
    async (trial) => {
      const vm = trial.anyVm
      const calls = callsOf(trial)
      await trial.within(vm.close(), 'close()')
      expectEqual(vm.closed, true, 'closed after close()')
      for (const [name, call] of calls) expectThrows('CLOSED', `${name} after close()`, call)
    },
    own,
  )

  define(
    'twice is once',
    [],
    async (trial) => {
      const vm: VmBase = trial.vm
      expectEqual(vm.closed, false, 'closed of an open VM')
      await trial.within(Promise.all([vm.close(), vm.close()]), 'two calls of close()')
      await trial.within(vm.close(), 'a third close()')
      vm.release()
      await trial.within(Promise.resolve(vm[Symbol.asyncDispose]()), 'disposal after close()')
    },
    own,
  )

  define(
    'the guest can be opened anew',
    [],
    async (trial) => {
      await trial.within(trial.vm.close(), 'close()')
      const next = await trial.within(trial.open(), 'open() after close()')
      expectEqual(next.id, trial.vm.id, 'the id of the VM that was opened anew')
    },
    own,
  )

  define(
    'release undoes everything at once',
    ['pause'],
    async (trial) => {
      const { vm } = trial
      if (vm.runState() !== 'running') trial.skip('the guest does not run')
      const witness = trial.guest.sessions === 'several' ? await trial.open() : undefined
      await trial.progress().goesOn('before it is released')
      vm.pause()
      vm.release()
      expectEqual(vm.closed, true, 'closed after release()')
      expectThrows('CLOSED', 'runState() after release()', () => vm.runState())
      if (witness) {
        expectEqual(witness.runState(), 'running', 'the run state after release(), in another session,')
        await trial.progress(witness).goesOn('after release() with a lease held')
      }
      await trial.within(vm.close(), 'close() after release()')
      const next = await trial.open()
      expectEqual(next.runState(), 'running', 'the run state after release()')
      await trial.progress(next).goesOn('after release() and close()')
    },
    own,
  )
})

/** Every member that this VM has, as calls that would work while it is open. */
function callsOf(trial: Trial<never>): (readonly [string, () => unknown])[] {
  const vm = trial.anyVm
  const { memory } = trial.guest
  const address = memory?.known[0]?.address ?? 0
  const byte = new Uint8Array(1)
  const index = trial.guest.msr?.index ?? EFER
  const calls: Readonly<Record<string, readonly (readonly [string, () => unknown])[]>> = {
    'memory.read': [
      ['read()', () => vm.memory.read(address, byte)],
      ['an empty read()', () => vm.memory.read(address, new Uint8Array(0))],
      ['tryRead()', () => vm.memory.tryRead(address, byte)],
      ['readMany()', () => vm.memory.readMany([{ address, into: byte }])],
      ['readUint64()', () => vm.memory.readUint64(address)],
    ],
    'memory.write': [['write()', () => vm.memory.write(address, byte)]],
    'memory.regions': [['regions()', () => vm.memory.regions()]],
    'memory.map': [['map()', () => vm.memory.map(address, 1, () => expect(false, 'a window was made'))]],
    'memory.access': [['getAccess()', () => vm.memory.getAccess(address)]],
    'memory.alloc': [['allocate()', () => vm.memory.allocate()]],
    'registers.read': [['readRegisters()', () => vm.readRegisters(0)]],
    'registers.write': [['writeRegisters()', () => vm.writeRegisters(0, {})]],
    'msr.read': [['readMsr()', () => vm.readMsr(0, index)]],
    'msr.write': [['writeMsr()', () => vm.writeMsr(0, index, 0n)]],
    pause: [
      ['pause()', () => vm.pause()],
      ['runState()', () => vm.runState()],
      ['setRunState()', () => vm.setRunState('running')],
    ],
    inject: [['inject()', () => vm.inject(0, { type: 'nmi' })]],
    views: [['views.create()', () => vm.views.create()]],
    'events.cr': [['intercept()', () => vm.intercept({ kind: 'cr', register: 'cr3' })]],
    'events.breakpoint': [['intercept()', () => vm.intercept({ kind: 'breakpoint', address: 0n })]],
    'events.lifecycle': [['intercept()', () => vm.intercept({ kind: 'lifecycle' })]],
  }
  return [...vm.capabilities].flatMap((capability) => calls[capability] ?? [])
}
