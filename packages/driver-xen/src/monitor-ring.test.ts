import fc from 'fast-check'
import { expect, test } from 'vitest'
import { abiOf, KNOWN_MINORS } from './abi/versions.ts'
import { SLOT } from './abi/vm-event.ts'
import { MonitorRing } from './monitor-ring.ts'

const PAGE = 4096
const abi = abiOf({ major: 4, minor: 17, extra: '' })
const failing = (code: string) => expect.objectContaining({ name: 'MicrovmiError', code })

/** Xen's side, by io/ring.h: puts requests in, takes responses out. */
class Other {
  readonly page = new Uint8Array(PAGE)
  readonly indices = new Uint32Array(this.page.buffer, 0, 4)
  readonly #slots: number
  #taken = 0

  constructor(slots: number) {
    this.#slots = slots
  }

  put(vcpu: number): void {
    const index = this.indices[0] ?? 0
    const view = new DataView(this.page.buffer, 64 + (index & (this.#slots - 1)) * abi.slotLength)
    view.setUint32(SLOT.version, abi.vmEvent, true)
    view.setUint32(SLOT.vcpu, vcpu, true)
    this.indices[0] = index + 1
  }

  takeAll(): number[] {
    const vcpus: number[] = []
    while (this.#taken !== this.indices[2]) {
      const view = new DataView(this.page.buffer, 64 + (this.#taken & (this.#slots - 1)) * abi.slotLength)
      vcpus.push(view.getUint32(SLOT.vcpu, true))
      this.#taken = (this.#taken + 1) >>> 0
    }
    return vcpus
  }
}

function rings() {
  const other = new Other(8)
  const ring = new MonitorRing(other.page, abi)
  ring.initialise()
  return { other, ring, slot: new Uint8Array(abi.slotLength) }
}

test('a ring has eight slots where a request has 400 bytes, and a power of two in every version', () => {
  expect(rings().ring.slots).toBe(8)
  for (const minor of KNOWN_MINORS) {
    const one = abiOf({ major: 4, minor, extra: '' })
    const { slots } = new MonitorRing(new Uint8Array(PAGE), one)
    expect(Math.log2(slots) % 1).toBe(0)
    expect(64 + slots * one.slotLength).toBeLessThanOrEqual(PAGE)
    expect(64 + 2 * slots * one.slotLength).toBeGreaterThan(PAGE)
  }
})

test('whatever comes in whatever pieces goes through in its order, also where the indices wrap', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 8 }), { maxLength: 40 }), (batches) => {
      const { other, ring, slot } = rings()
      let next = 0
      for (const count of batches) {
        const batch = Array.from({ length: count }, () => next++ & 0xffff)
        for (const vcpu of batch) other.put(vcpu)
        expect(ring.sleep()).toBe(false)
        while (ring.take(slot)) ring.answer(slot)
        expect(ring.sleep()).toBe(true)
        expect(other.takeAll()).toEqual(batch)
      }
    }),
  )
})

test('a request that comes while going to sleep is seen', () => {
  const { other, ring, slot } = rings()
  expect(ring.sleep()).toBe(true)
  expect(other.indices[1]).toBe(1)
  other.put(3)
  expect(ring.sleep()).toBe(false)
  expect(ring.take(slot)).toBe(true)
  expect(ring.take(slot)).toBe(false)
})

test('a ring whose indices or versions lie ends with an error', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: PAGE, maxLength: PAGE }), (bytes) => {
      const { other, ring, slot } = rings()
      other.page.set(bytes)
      const waiting = other.indices[0] ?? 0
      if (waiting === 0) expect(ring.take(slot)).toBe(false)
      else if (waiting > 8) expect(() => ring.take(slot)).toThrow(failing('PROTOCOL'))
    }),
  )
  const { other, ring, slot } = rings()
  other.put(0)
  new DataView(other.page.buffer).setUint32(64, 6, true)
  expect(() => ring.take(slot)).toThrow(failing('PROTOCOL'))
})
