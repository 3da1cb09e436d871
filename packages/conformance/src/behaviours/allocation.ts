import { PAGE_SIZE } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expect, expectBadAddress, expectBytes, expectEqual, hex } from '../expect.ts'
import { pattern } from './writes.ts'

/** `allocate` and `free`. */
export const allocation = behaviours('memory: pages of ours', (define) => {
  define('a page is new, zeroed and can be used', ['memory.alloc', 'memory.read', 'memory.write'], (trial) => {
    const { memory } = trial.vm
    const pages = [memory.allocate(), memory.allocate()]
    trial.afterwards(() => {
      for (const page of pages) memory.free(page)
    })
    const [first = 0, second = 0] = pages
    expect(first !== second, `two pages are at the same address, ${hex(first)}`)
    for (const page of pages) {
      expectEqual(page % PAGE_SIZE, 0, `the offset of the new page at ${hex(page)}`)
      const into = new Uint8Array(PAGE_SIZE).fill(1)
      memory.read(page, into)
      expectBytes(into, new Uint8Array(PAGE_SIZE), page, 'a new page')
    }
    memory.write(first, pattern(PAGE_SIZE, 2))
    const into = new Uint8Array(PAGE_SIZE)
    memory.read(first, into)
    expectBytes(into, pattern(PAGE_SIZE, 2), first, 'what was written to a new page')
    memory.read(second, into)
    expectBytes(into, new Uint8Array(PAGE_SIZE), second, 'the other new page')
  })

  define('a page that was freed is gone', ['memory.alloc', 'memory.read'], ({ vm }) => {
    const page = vm.memory.allocate()
    vm.memory.free(page)
    expectBadAddress(page, 'read() of a page that was freed', () => vm.memory.read(page, new Uint8Array(1)))
  })

  define(
    'close takes away what is left',
    ['memory.alloc', 'memory.read'],
    async (trial) => {
      const page = trial.vm.memory.allocate()
      await trial.vm.close()
      const next = await trial.open()
      expectEqual(next.memory.tryRead(page, new Uint8Array(1)), false, 'tryRead() of a page of the session before')
    },
    { session: 'own' },
  )
})
