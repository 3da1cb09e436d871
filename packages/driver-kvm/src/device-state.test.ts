import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseDeviceState, registersIn } from './device-state.ts'

/** A stream as QEMU writes it, of these sections. */
function stream(...sections: { name: string; version?: number; fields: Uint8Array }[]): Uint8Array {
  const parts = [Buffer.from('QEVM'), u32(3)]
  for (const [id, { name, version = 1, fields }] of sections.entries()) {
    parts.push(
      Buffer.of(4),
      u32(id),
      Buffer.of(name.length),
      Buffer.from(name),
      u32(0),
      u32(version),
      Buffer.from(fields),
    )
    parts.push(Buffer.of(0x7e), u32(id))
  }
  return Buffer.concat([...parts, Buffer.of(0)])
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

test('sections end at the footer that a header follows, not at bytes that look like one', () => {
  const tricky = Buffer.concat([Buffer.of(0x7e), u32(0), Buffer.of(0x7e), u32(0), Buffer.of(4), u32(0)])
  const sections = parseDeviceState(
    stream({ name: 'timer', fields: tricky }, { name: 'cpu', version: 12, fields: Buffer.of(9) }),
  )
  expect(sections.map(({ name, version, fields }) => [name, version, fields.byteLength])).toEqual([
    ['timer', 1, tricky.length],
    ['cpu', 12, 1],
  ])
})

test('registers of version 12, and none of another', () => {
  const fields = Buffer.alloc(1900)
  fields.writeBigUInt64BE(0x1111n, 0)
  fields.writeBigUInt64BE(0xffff_ffff_8100_0000n, 128)
  fields.writeBigUInt64BE(7n, 1545)
  fields.writeUInt32BE(0x10, 256)
  fields.writeUInt32BE(0xffff_ffff, 256 + 12)
  fields.writeUInt32BE(0x00af_9b00, 256 + 16)
  const apic = Buffer.from('fee009000000300000', 'hex')
  const sections = parseDeviceState(
    stream({ name: 'cpu', version: 12, fields }, { name: 'apic', version: 3, fields: apic }),
  )
  expect(registersIn(sections)?.get(0)).toMatchObject({
    rax: 0x1111n,
    rip: 0xffff_ffff_8100_0000n,
    xcr0: 7n,
    apicBase: 0xfee0_0900n,
    cr8: 3n,
    cs: { selector: 0x10, base: 0n, limit: 0xffff_ffff, attributes: 0xa09b },
  })
  expect(registersIn(parseDeviceState(stream({ name: 'cpu', version: 13, fields })))).toBeUndefined()
  expect(
    registersIn(parseDeviceState(stream({ name: 'cpu', version: 12, fields: fields.subarray(0, 100) }))),
  ).toBeUndefined()
  expect(registersIn([])).toBeUndefined()
})

test('whatever the bytes, there are sections or a PROTOCOL error', () => {
  const good = stream(
    { name: 'timer', fields: Buffer.alloc(20) },
    { name: 'cpu', version: 12, fields: Buffer.alloc(1817) },
  )
  const damage = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 20 })
  fc.assert(
    fc.property(damage, fc.nat(good.length), fc.uint8Array(), (changes, length, random) => {
      const damaged = good.slice(0, length)
      for (const [at, value] of changes) damaged[at] = value
      for (const bytes of [damaged, random]) {
        try {
          registersIn(parseDeviceState(bytes))
        } catch (error) {
          expect(error).toMatchObject({ code: 'PROTOCOL' })
        }
      }
    }),
    { numRuns: 1000 },
  )
})
