import { type Access, PAGE_SIZE } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expectBadAddress, expectEqual } from '../expect.ts'

const RIGHTS: readonly Access[] = ['r', 'rx', 'rw', 'rwx']

/** `setAccess` and `getAccess`, on memory that the guest does not use. */
export const pageAccess = behaviours('memory: page access', (define) => {
  define('rights that were set are there, on their page alone', ['memory.access'], (trial) => {
    const { memory } = trial.vm
    const { address, length } = trial.memory('scratch')
    const before = memory.getAccess(address)
    trial.afterwards(() => memory.setAccess(address, PAGE_SIZE, before))
    for (const access of RIGHTS) {
      memory.setAccess(address, PAGE_SIZE, access)
      expectEqual(memory.getAccess(address), access, 'the access that was set')
      expectEqual(memory.getAccess(address + PAGE_SIZE - 1), access, 'the access of the last byte of the page')
      if (length < 2 * PAGE_SIZE) continue
      expectEqual(memory.getAccess(address + PAGE_SIZE), before, 'the access of the next page')
    }
  })

  define('every page of a range', ['memory.access'], (trial) => {
    const { memory } = trial.vm
    const { address, length } = trial.memory('scratch')
    if (length < 2 * PAGE_SIZE) trial.skip('the scratch area of the fixture has less than two pages')
    const before = memory.getAccess(address)
    trial.afterwards(() => memory.setAccess(address, 2 * PAGE_SIZE, before))
    memory.setAccess(address + PAGE_SIZE - 1, 2, 'r')
    expectEqual(memory.getAccess(address), 'r', 'the access of the first of two pages')
    expectEqual(memory.getAccess(address + PAGE_SIZE), 'r', 'the access of the second of two pages')
  })

  define('none for what is not memory', ['memory.access'], (trial) => {
    const { memory } = trial.vm
    const end = trial.memory('end')
    expectBadAddress(end, 'setAccess() behind the end of RAM', () => memory.setAccess(end, PAGE_SIZE, 'r'))
    expectBadAddress(end, 'getAccess() behind the end of RAM', () => memory.getAccess(end))
  })

  define(
    'close gives all rights back',
    ['memory.access'],
    async (trial) => {
      const { address } = trial.memory('scratch')
      const before = trial.vm.memory.getAccess(address)
      trial.vm.memory.setAccess(address, PAGE_SIZE, 'r')
      await trial.vm.close()
      const next = await trial.open()
      expectEqual(next.memory.getAccess(address), before, 'the access that the session before had changed')
    },
    { session: 'own' },
  )
})
