import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseStopReply } from './stop-reply.ts'

test.each([
  ['T05thread:p01.01;', { vcpu: 0, isTrap: true, watch: undefined }],
  ['T05thread:p01.0a;', { vcpu: 9, isTrap: true, watch: undefined }],
  ['T02thread:01;', { vcpu: 0, isTrap: false, watch: undefined }],
  ['T05thread:p01.02;watch:00000000004a8340;', { vcpu: 1, isTrap: true, watch: { access: 'w', address: 0x4a8340n } }],
  ['T05thread:p01.01;awatch:10;', { vcpu: 0, isTrap: true, watch: { access: 'rw', address: 0x10n } }],
  ['T05thread:p01.01;rwatch:10;', { vcpu: 0, isTrap: true, watch: { access: 'r', address: 0x10n } }],
  ['S05', { vcpu: 0, isTrap: true, watch: undefined }],
  ['OK', undefined],
  ['E22', undefined],
  ['', undefined],
])('%s', (packet, expected) => {
  expect(parseStopReply(packet)).toEqual(expected)
})

test.each(['T05thread:p01.00;', 'T05thread:x;', 'T05thread:p01.10000;', 'T05watch:;', 'T0', 'S'])(
  '%s is a lie',
  (packet) => {
    expect(() => parseStopReply(packet)).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
  },
)

test.each(['W00', 'X09'])('%s: QEMU has ended', (packet) => {
  expect(() => parseStopReply(packet)).toThrow(expect.objectContaining({ code: 'VM_GONE' }))
})

test('whatever arrives, it is a stop of a vCPU that can be, no stop, or a coded error', () => {
  const letters = fc.constantFrom(...'TSWX05thread:;p.watch:f')
  const packet = fc.oneof(
    fc.string(),
    fc.array(letters).map((all) => `T${all.join('')}`),
  )
  fc.assert(
    fc.property(packet, (packet) => {
      try {
        const stop = parseStopReply(packet)
        if (stop) expect(stop.vcpu).toBeGreaterThanOrEqual(0)
      } catch (error) {
        expect(error).toMatchObject({ name: 'MicrovmiError' })
      }
    }),
    { numRuns: 2000 },
  )
})
