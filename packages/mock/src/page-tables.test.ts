import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createGuest } from './index.ts'
import { AddressSpace, canonical, emptyTranslation, uncanonical, walk } from './page-tables.ts'
import { PhysicalMemory } from './physical-memory.ts'

const MIB = 2 ** 20

/** Memory with an allocator of its pages, from 1 MiB on. */
function memoryWithAllocator() {
  const memory = new PhysicalMemory(16 * MIB, 4 * MIB)
  let next = MIB
  const allocate = () => {
    const address = next
    next += 4096
    return address
  }
  return { memory, allocate }
}

const page = fc.integer({ min: 0, max: 2 ** 36 - 1 }).map((number) => number * 4096)
const rights = fc.record({ writable: fc.boolean(), user: fc.boolean(), executable: fc.boolean() })

test('what is mapped is found, with its rights; the rest is not', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.record({ virtual: page, frame: fc.nat(2 ** 20), rights }), {
        selector: ({ virtual }) => virtual,
        maxLength: 30,
      }),
      page,
      fc.nat(4095),
      (mappings, other, offset) => {
        const { memory, allocate } = memoryWithAllocator()
        const space = new AddressSpace(memory, allocate)
        for (const one of mappings) space.map(one.virtual, one.frame * 4096, one.rights)
        const found = emptyTranslation()
        for (const one of mappings) {
          expect(walk(memory, space.root, one.virtual + offset, found)).toBe(true)
          expect(found.physical).toBe(one.frame * 4096 + offset)
          expect(found.writable).toBe(one.rights.writable)
          expect(found.executable).toBe(one.rights.executable)
        }
        const isMapped = mappings.some(({ virtual }) => virtual === other)
        expect(walk(memory, space.root, other + offset, found)).toBe(isMapped)
      },
    ),
  )
})

test('a page of 2 MiB maps all of them', () => {
  const { memory, allocate } = memoryWithAllocator()
  const space = new AddressSpace(memory, allocate)
  space.map(0x8880_0020_0000, 0x40_0000, { writable: true, user: false, executable: false }, 0x20_0000)
  const found = emptyTranslation()
  expect(walk(memory, space.root, 0x8880_003f_ffff, found)).toBe(true)
  expect(found).toMatchObject({ physical: 0x5f_ffff, span: 0x20_0000, user: false })
  expect(walk(memory, space.root, 0x8880_0040_0000, found)).toBe(false)
})

test('hostile tables end a walk, wherever they point', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 4096, maxLength: 4096 }), page, fc.nat(), (bytes, virtual, root) => {
      const { memory } = memoryWithAllocator()
      memory.write(2 * MIB, bytes)
      const found = emptyTranslation()
      expect(typeof walk(memory, 2 * MIB, virtual, found)).toBe('boolean')
      expect(typeof walk(memory, root * 4096, virtual, found)).toBe('boolean')
    }),
  )
})

test('a table that points at itself is walked four levels deep', () => {
  const { memory } = memoryWithAllocator()
  const entry = new DataView(new ArrayBuffer(8))
  entry.setBigUint64(0, BigInt(2 * MIB) | 7n, true)
  for (let offset = 0; offset < 4096; offset += 8) memory.write(2 * MIB + offset, new Uint8Array(entry.buffer))
  const found = emptyTranslation()
  expect(walk(memory, 2 * MIB, 0x1234_5678_9abc, found)).toBe(true)
  expect(found.physical).toBe(2 * MIB + 0xabc)
})

test('canonical addresses and back', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 48 - 1 }), (low) => {
      expect(uncanonical(canonical(low))).toBe(low)
    }),
  )
  expect(canonical(0x8880_0000_0000)).toBe(0xffff_8880_0000_0000n)
  expect(uncanonical(0x0000_8000_0000_0000n)).toBeUndefined()
})

test('the tables of the guest say what was mapped', () => {
  const guest = createGuest({ seed: 9 })
  const memory = new PhysicalMemory(16 * MIB, 4 * MIB)
  for (const { start, length } of guest.ranges) memory.write(start, guest.read(start, length))
  const found = emptyTranslation()
  for (const process of guest.processes) {
    for (const { virtual, physical, length, ...allowed } of process.mappings) {
      expect(walk(memory, Number(process.cr3), uncanonical(virtual) ?? 0, found)).toBe(true)
      expect(found).toMatchObject({ physical, span: length, ...allowed })
    }
  }
  guest.remove()
})

test('a vCPU marks what it has accessed and written', () => {
  const guest = createGuest({ vcpus: 1, processes: [{ name: 'one' }, { name: 'two' }] })
  const memory = () => {
    const copy = new PhysicalMemory(16 * MIB, 4 * MIB)
    for (const { start, length } of guest.ranges) copy.write(start, guest.read(start, length))
    return copy
  }
  const marks = (virtual: number) => {
    const found = emptyTranslation()
    walk(memory(), Number(guest.process('one').cr3), virtual, found)
    return (found.table?.view.getUint32(found.offset, true) ?? 0) & 0x60
  }
  expect([marks(0x40_0000), marks(0x60_0000), marks(0x60_1000)]).toEqual([0, 0, 0])
  guest.runNow(5000)
  expect([marks(0x40_0000), marks(0x60_0000), marks(0x60_1000)]).toEqual([0x20, 0x60, 0])
  guest.remove()
})
