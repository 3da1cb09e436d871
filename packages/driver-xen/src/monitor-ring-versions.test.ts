import { MicrovmiError } from '@microvmi/core'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { at, LAYOUTS } from './abi/layouts.testing.ts'
import { abiOf } from './abi/versions.ts'
import { SLOT } from './abi/vm-event.ts'
import { MonitorRing } from './monitor-ring.ts'

/** Xen's side of a ring page, by the offsets that the headers of the version have. */
function xensSide(minor: number) {
  const layout = LAYOUTS.find(([one]) => one === minor)?.[1]
  if (!layout) throw new Error(`no headers of 4.${minor}`)
  const where = (member: string) => at(layout, 'vm_event_sring', member)
  const abi = abiOf({ major: 4, minor, extra: '' })
  const page = new Uint8Array(4096)
  const view = new DataView(page.buffer)
  const slots = where('slots')
  const slotAt = (index: number) => where('ring') + (index % slots) * abi.slotLength
  return {
    ...{ abi, page, view, slots, slotAt, where },
    ring: new MonitorRing(page, abi),
    /** Puts a request in. */
    produce(reason: number, version = abi.vmEvent) {
      const index = view.getUint32(where('req_prod'), true)
      view.setUint32(slotAt(index) + SLOT.version, version, true)
      view.setUint32(slotAt(index) + SLOT.reason, reason, true)
      view.setUint32(where('req_prod'), index + 1, true)
    },
  }
}

describe.each(LAYOUTS.map(([minor]) => minor))('the ring of Xen 4.%i', (minor) => {
  test('is as the headers have it', () => {
    const { ring, slots, page, view, where } = xensSide(minor)
    page.fill(0xa5)
    ring.initialise()
    expect(ring.slots).toBe(slots)
    const indices = ['req_prod', 'req_event', 'rsp_prod', 'rsp_event'].map((name) => view.getUint32(where(name), true))
    expect(indices).toEqual([0, 1, 0, 1])
  })

  test('hands over every request once, in order, and takes as many answers', () => {
    const actions = fc.array(fc.constantFrom('request', 'take', 'answer'), { maxLength: 200 })
    fc.assert(
      fc.property(actions, (todo) => {
        const { ring, abi, slots, produce, view, where, slotAt } = xensSide(minor)
        ring.initialise()
        const slot = new Uint8Array(abi.slotLength)
        const reasonOf = (bytes: Uint8Array) => new DataView(bytes.buffer).getUint32(SLOT.reason, true)
        let produced = 0
        let taken = 0
        let answered = 0
        for (const action of todo) {
          // Xen puts in no more than there are free slots: one is free again when its answer is there.
          if (action === 'request' && produced - answered < slots) produce(produced++)
          if (action === 'take') {
            expect(ring.take(slot)).toBe(produced > taken)
            if (produced > taken) expect(reasonOf(slot)).toBe(taken++)
          }
          if (action === 'answer' && answered < taken) {
            const answer = new Uint8Array(abi.slotLength)
            new DataView(answer.buffer).setUint32(SLOT.vcpu, 7 + answered, true)
            ring.answer(answer)
            expect(view.getUint32(slotAt(answered) + SLOT.vcpu, true)).toBe(7 + answered)
            answered++
            expect(view.getUint32(where('rsp_prod'), true)).toBe(answered)
          }
        }
        while (ring.take(slot)) expect(reasonOf(slot)).toBe(taken++)
        expect(taken).toBe(produced)
        expect(ring.sleep()).toBe(true)
        expect(view.getUint32(where('req_event'), true)).toBe(taken + 1)
        produce(0)
        expect(ring.sleep()).toBe(false)
      }),
    )
  })
})

describe('what Xen would never write', () => {
  test('indices that make no sense are PROTOCOL, and nothing outside of the page is touched', () => {
    const indices = fc.oneof(fc.integer({ min: 0, max: 10 }), fc.integer({ min: 0, max: 0xffff_ffff }))
    fc.assert(
      fc.property(indices, fc.uint8Array({ minLength: 8, maxLength: 64 }), (index, noise) => {
        const { ring, page, view, where, slots, abi } = xensSide(17)
        ring.initialise()
        for (let offset = 0; offset < page.length; offset++) page[offset] = noise[offset % noise.length] ?? 0
        view.setUint32(where('req_prod'), index, true)
        const slot = new Uint8Array(abi.slotLength)
        try {
          expect(ring.take(slot)).toBe(index !== 0)
          expect(index).toBeLessThanOrEqual(slots)
          if (index > 0) expect(new DataView(slot.buffer).getUint32(SLOT.version, true)).toBe(abi.vmEvent)
        } catch (error) {
          if (!(error instanceof MicrovmiError)) throw error
          expect(error.code).toBe('PROTOCOL')
        }
      }),
    )
  })

  test('an index that goes back is as wrong as one too far ahead', () => {
    const { ring, view, where, produce, abi } = xensSide(17)
    ring.initialise()
    const slot = new Uint8Array(abi.slotLength)
    produce(1)
    produce(2)
    ring.take(slot)
    ring.take(slot)
    view.setUint32(where('req_prod'), 1, true)
    expect(() => ring.take(slot)).toThrow(/8 slots/)
  })
})
