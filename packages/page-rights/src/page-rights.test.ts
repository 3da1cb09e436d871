import { type Access, MicrovmiError } from '@microvmi/core'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ALL_RIGHTS, accessOf, bitsOf } from './access.ts'
import { PageRights } from './page-rights.ts'

const PAGE = 4096
const PAGES = 8
const ACCESSES: readonly Access[] = ['none', 'r', 'w', 'rw', 'x', 'rx', 'wx', 'rwx']

/** A hypervisor that keeps what it was told, and can refuse. */
class Tables {
  readonly rights = new Map<string, number>()
  refused: ((view: number, frame: number, rights: number) => boolean) | undefined

  firstMissing(address: number, length: number): number | undefined {
    return address + length > PAGES * PAGE ? Math.max(address, PAGES * PAGE) : undefined
  }

  set(view: number, frames: readonly number[], rights: readonly number[]): void {
    for (const [index, frame] of frames.entries()) {
      const bits = rights[index] ?? 0
      if (this.refused?.(view, frame, bits)) throw new MicrovmiError('UNSUPPORTED', `not ${accessOf(bits)}`)
      this.rights.set(`${view} ${frame}`, bits)
    }
  }

  of(view: number, frame: number): number {
    return this.rights.get(`${view} ${frame}`) ?? ALL_RIGHTS
  }

  /** What differs from the guest's own. */
  get changed(): string[] {
    return [...this.rights].filter(([, rights]) => rights !== ALL_RIGHTS).map(([key]) => key)
  }
}

const frame = fc.nat({ max: PAGES - 1 })
const access = fc.constantFrom(...ACCESSES)
const step = fc.oneof(
  fc.record({ what: fc.constant('set' as const), frame, access }),
  fc.record({
    what: fc.constant('guard' as const),
    number: fc.nat({ max: 3 }),
    frame,
    bits: fc.integer({ min: 1, max: 7 }),
  }),
  fc.record({ what: fc.constant('unguard' as const), number: fc.nat({ max: 3 }) }),
)

test('a page has what the app has left it, less what is watched', () => {
  fc.assert(
    fc.property(fc.array(step), (steps) => {
      const tables = new Tables()
      const rights = new PageRights(tables)
      const left = new Map<number, number>()
      const guards = new Map<number, { frame: number; bits: number }>()
      for (const one of steps) {
        if (one.what === 'set') {
          rights.setAccess(one.frame * PAGE, 1, one.access)
          left.set(one.frame, bitsOf(one.access))
        } else if (one.what === 'unguard') {
          rights.unguard(one.number)
          guards.delete(one.number)
        } else if (!guards.has(one.number)) {
          rights.guard(one.number, one.frame * PAGE + 100, 1, one.bits, undefined)
          guards.set(one.number, one)
        }
      }
      for (let at = 0; at < PAGES; at++) {
        const watched = [...guards.values()].filter((guard) => guard.frame === at).map(({ bits }) => bits)
        let expected = watched.reduce((bits, one) => bits & ~one, left.get(at) ?? ALL_RIGHTS)
        if (watched.length > 0 && (expected & 1) === 0) expected &= ~2
        expect(tables.of(0, at)).toBe(expected)
        expect(rights.getAccess(at * PAGE)).toBe(accessOf(left.get(at) ?? ALL_RIGHTS))
      }
      rights.release()
      expect(tables.changed).toEqual([])
      expect(rights.isEmpty).toBe(true)
    }),
  )
})

test('where one page of several cannot have its rights, all are as before', () => {
  const tables = new Tables()
  const rights = new PageRights(tables)
  rights.setAccess(PAGE, PAGE, 'rx')
  tables.refused = (_, at, bits) => at === 3 && bits === 1
  expect(() => rights.setAccess(0, 4 * PAGE, 'r')).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }))
  expect(tables.changed).toEqual(['0 1'])
  expect(rights.getAccess(PAGE)).toBe('rx')
  expect(rights.getAccess(0)).toBe('rwx')
})

test('a page that is not there is refused before anything is set', () => {
  const tables = new Tables()
  const rights = new PageRights(tables)
  const refusal = expect.objectContaining({ code: 'BAD_ADDRESS' })
  expect(() => rights.setAccess((PAGES - 1) * PAGE, 2 * PAGE, 'r')).toThrow(refusal)
  expect(() => rights.guard(1, PAGES * PAGE, 1, 2, undefined)).toThrow(refusal)
  expect(tables.rights.size).toBe(0)
})

test('a new view begins with the rights of the own one, and with what is guarded everywhere', () => {
  const tables = new Tables()
  const rights = new PageRights(tables)
  rights.setAccess(0, PAGE, 'rx')
  rights.guard(1, PAGE, 1, bitsOf('w'), undefined)
  rights.guard(2, 2 * PAGE, 1, bitsOf('w'), 0)
  rights.copyTo(5)
  expect([0, 1, 2].map((at) => accessOf(tables.of(5, at)))).toEqual(['rx', 'rx', 'rwx'])
  rights.guard(3, 3 * PAGE, 1, bitsOf('x'), undefined)
  expect(accessOf(tables.of(5, 3))).toBe('rw')
  rights.forget(5)
  rights.unguard(3)
  expect(accessOf(tables.of(0, 3))).toBe('rwx')
})

test('relaxed for a step, and restored', () => {
  const tables = new Tables()
  const rights = new PageRights(tables)
  rights.guard(1, 0, 1, bitsOf('rw'), undefined)
  rights.relax(0, 0)
  expect(tables.of(0, 0)).toBe(ALL_RIGHTS)
  rights.restore(0, 0)
  expect(accessOf(tables.of(0, 0))).toBe('x')
})
