import { pageFrame } from '@microvmi/core'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AddressSpace } from './address-space.ts'
import { TestGuest } from './guest.testing.ts'
import { mappings } from './mappings.ts'
import { type Paging, type PagingMode, pagingOf } from './mode.ts'
import { physicalMemoryOf } from './physical-memory.ts'

const PG = 1n << 31n
const PAE = 1n << 5n
const PSE = 1n << 4n
const LA57 = 1n << 12n
const LONG = 1n << 10n
const NX = 1n << 63n

test.each([
  ['none', { cr0: 0n, cr3: 0x1000n, cr4: 0n, efer: 0n }, 0x1000],
  ['32-bit', { cr0: PG, cr3: 0xffff_1018n, cr4: PSE, efer: 0n }, 0xffff_1000],
  ['pae', { cr0: PG, cr3: 0x1_1234_5678n, cr4: PAE, efer: 0n }, 0x1234_5660],
  ['4-level', { cr0: PG, cr3: 0x8000_0001_2345_6fffn, cr4: PAE, efer: LONG }, 0x1_2345_6000],
  ['5-level', { cr0: PG, cr3: 0x1000n, cr4: PAE | LA57, efer: LONG }, 0x1000],
  ['4-level', { cr0: PG, cr3: 0x1000n, cr4: PAE, efer: undefined }, 0x1000],
] as const)('%s from the control registers', (mode, registers, root) => {
  expect(pagingOf(registers)).toMatchObject({ mode, root })
})

const KIB4 = 4096
const MIB2 = 2 ** 21
const MIB4 = 2 ** 22
const GIB = 2 ** 30

const modes: [Exclude<PagingMode, 'none'>, number[], bigint][] = [
  ['32-bit', [KIB4, MIB4], 2n ** 32n],
  ['pae', [KIB4, MIB2], 2n ** 32n],
  ['4-level', [KIB4, MIB2, GIB], 2n ** 48n],
  ['5-level', [KIB4, MIB2, GIB], 2n ** 57n],
]

function canonical(mode: PagingMode, address: bigint): bigint {
  if (mode === '4-level') return BigInt.asUintN(64, BigInt.asIntN(48, address))
  if (mode === '5-level') return BigInt.asUintN(64, BigInt.asIntN(57, address))
  return address
}

describe.each(modes)('%s', (mode, sizes, limit) => {
  const paging = (root: number): Paging => ({ mode, root, noExecute: true, largePages: true })
  /** Physical addresses that the mode's entries can hold. */
  const physicalLimit = mode === '32-bit' ? 2 ** 32 : 2 ** 52
  const oneMapping = fc.record({
    page: fc.bigInt({ min: 0n, max: limit / BigInt(KIB4) - 1n }),
    size: fc.constantFrom(...sizes),
    frame: fc.integer({ min: 0, max: physicalLimit / KIB4 - 1 }),
    writable: fc.boolean(),
    user: fc.boolean(),
    executable: fc.boolean(),
    offset: fc.nat(),
  })

  test('leads where the tables say, with their rights; the walk over all finds the same', () => {
    fc.assert(
      fc.property(oneMapping, ({ page, size, frame, writable, user, executable, offset }) => {
        const guest = new TestGuest()
        const root = guest.allocate()
        const base = canonical(mode, (page * BigInt(KIB4)) & ~BigInt(size - 1) & (limit - 1n))
        const physical = Math.floor((frame * KIB4) / size) * size
        const rights = mode === '32-bit' ? { writable, user, executable: true } : { writable, user, executable }
        const flags = (writable ? 2n : 0n) | (user ? 4n : 0n) | (rights.executable ? 0n : NX)
        guest.map(mode, root, base, physical, size, flags)
        const space = new AddressSpace(guest.vm, paging(root))
        const within = offset % size
        expect(space.translate(base + BigInt(within))).toEqual({
          physicalAddress: physical + within,
          pageSize: size,
          ...rights,
        })
        expect(space.maps(base, physical)).toBe(true)
        expect([...mappings(guest.vm, paging(root))]).toEqual([
          { virtualAddress: base, physicalAddress: physical, pageSize: size, ...rights },
        ])
        expect([...mappings(guest.vm, paging(root), { showing: physical + within })]).toHaveLength(1)
        expect([...mappings(guest.vm, paging(root), { showing: physical + size })]).toHaveLength(0)
        const beside = canonical(mode, (base ^ BigInt(size)) & (limit - 1n))
        expect(space.translate(beside)).toBeUndefined()
      }),
      { numRuns: 60 },
    )
  })

  test('whatever is in memory, every walk ends', () => {
    const noise = new TestGuest()
    for (let at = 0; at < noise.bytes.length; at += 4)
      noise.view.setUint32(at, Math.imul(at + 1, 0x9e37_79b1) | 1, true)
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2047 }), fc.bigInt({ min: 0n, max: limit - 1n }), (page, address) => {
        const space = new AddressSpace(noise.vm, paging(page * KIB4))
        const found = space.translate(canonical(mode, address))
        if (found) expect(found.physicalAddress).toBeLessThan(2 ** 52)
      }),
    )
  })
})

describe('reading', () => {
  const base = 0xffff_8000_0000_0000n
  const paging: Paging = { mode: '4-level', root: 0x1000, noExecute: true, largePages: true }

  function guestWithText(): { guest: TestGuest; space: AddressSpace } {
    const guest = new TestGuest()
    // Neighbours in virtual memory, in reverse order in physical memory, then a hole.
    guest.map('4-level', 0x1000, base, 0x5000, KIB4, 0n)
    guest.map('4-level', 0x1000, base + 0x1000n, 0x4000, KIB4, 0n)
    guest.map('4-level', 0x1000, base + 0x3000n, 0x100_0000, KIB4, 0n)
    guest.bytes.set(new TextEncoder().encode('across'), 0x5ffd)
    guest.bytes.copyWithin(0x4000, 0x6000, 0x6003)
    guest.bytes.fill(0, 0x6000, 0x6003)
    return { guest, space: new AddressSpace(guest.vm, paging) }
  }

  test('goes across pages', () => {
    const { space } = guestWithText()
    const into = new Uint8Array(6)
    space.read(base + 0xffdn, into)
    expect(new TextDecoder().decode(into)).toBe('across')
    expect(space.readString(base + 0xffdn, 100)).toBe('across')
    expect(space.readString(base + 0xffdn, 4)).toBe('acro')
    expect(space.readUint32(base + 0xffdn)).toBe(0x6f726361)
    expect(space.readUint64(base + 0xffdn)).toBe(0x73736f726361n)
  })

  test('text that runs into a hole ends there', () => {
    const { guest, space } = guestWithText()
    guest.bytes.fill(0x41, 0x4ffe, 0x5000)
    expect(space.readString(base + 0x1ffen, 100)).toBe('AA')
  })

  test('what is not mapped, or mapped to what is not memory, is BAD_ADDRESS', () => {
    const { space } = guestWithText()
    const failing = expect.objectContaining({ code: 'BAD_ADDRESS' })
    expect(() => space.read(base + 0x1fffn, new Uint8Array(2))).toThrow(failing)
    expect(() => space.readUint64(base + 0x3000n)).toThrow(failing)
    expect(space.tryRead(base + 0x2000n, new Uint8Array(1))).toBe(false)
    expect(() => space.readString(base + 0x2000n, 5)).toThrow(failing)
    expect(space.translate(0x8000_0000_0000n)).toBeUndefined()
  })

  test.each([-1n, 2n ** 64n, 5 as unknown as bigint])('%s is no virtual address', (address) => {
    expect(() => guestWithText().space.translate(address)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
  })
})

test('without paging, addresses are physical', () => {
  const paging: Paging = { mode: 'none', root: 0, noExecute: false, largePages: false }
  const guest = new TestGuest()
  const space = new AddressSpace(guest.vm, paging)
  expect(space.translate(0x1234n)).toMatchObject({ physicalAddress: 0x1234 })
  expect(space.translate(2n ** 52n)).toBeUndefined()
  expect(() => mappings(guest.vm, paging).next()).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
})

test('4 MiB pages need CR4.PSE, and no entry forbids execution without EFER.NXE', () => {
  const guest = new TestGuest()
  const root = guest.allocate()
  guest.map('32-bit', root, 0x40_0000n, 0x80_0000, MIB4, 0n)
  const space = new AddressSpace(guest.vm, { mode: '32-bit', root, noExecute: false, largePages: false })
  expect(space.translate(0x40_0000n)).toBeUndefined()
  const long = guest.allocate()
  guest.map('4-level', long, 0n, 0x3000, KIB4, NX)
  expect(
    new AddressSpace(guest.vm, { mode: '4-level', root: long, noExecute: false, largePages: true }).translate(0n),
  ).toMatchObject({ executable: true })
})

test('a table that points at itself everywhere ends the walk with an error, not the process', () => {
  const guest = new TestGuest()
  for (let index = 0; index < 512; index++) guest.view.setBigUint64(0x1000 + index * 8, 0x1007n, true)
  const paging: Paging = { mode: '5-level', root: 0x1000, noExecute: true, largePages: true }
  const walk = () => {
    for (const _ of mappings(guest.vm, paging, { tableLimit: 1000 }));
  }
  expect(walk).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
})

test('any entries end in an address below 2^52 or in nothing, after five reads at most', () => {
  const word = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
  const modes = fc.constantFrom<PagingMode>('32-bit', 'pae', '4-level', '5-level')
  fc.assert(
    fc.property(word, word, modes, fc.array(word, { minLength: 1 }), (address, cr3, mode, entries) => {
      let reads = 0
      const physical = physicalMemoryOf((_, into) => {
        const entry = entries[reads++ % entries.length] ?? 0n
        for (let index = 0; index < into.length; index++) into[index] = Number((entry >> BigInt(8 * index)) & 0xffn)
        return true
      })
      const paging: Paging = { mode, root: pageFrame(cr3), noExecute: true, largePages: true }
      const found = new AddressSpace(physical, paging).translate(address)
      expect(reads).toBeLessThanOrEqual(5)
      if (found) expect(found.physicalAddress).toBeLessThan(2 ** 52)
    }),
  )
})

test('memory out of one function tells which reads it could not do', () => {
  const { memory } = physicalMemoryOf((address, into) => {
    into.fill(1)
    return address < 0x1000
  })
  const reads = [0, 0x2000, 8].map((address) => ({ address, into: new Uint8Array(4) }))
  expect(memory.readMany(reads)).toEqual([{ index: 1, address: 0x2000 }])
  expect(memory.tryRead(0x1000, new Uint8Array(1))).toBe(false)
})
