import { expect, test } from 'vitest'
import { type FakeBackend, fakeDriver } from './fake.testing.ts'
import { open } from './open.ts'

async function openFake() {
  const { driver, opened } = fakeDriver()
  const { memory } = await open(driver, { vm: 'guest' })
  return { memory, backend: opened[0] as FakeBackend }
}

const failing = (code: string, address?: number) =>
  expect.objectContaining(address === undefined ? { code } : { code, address })

test('reads into the buffer of the caller, and words little endian', async () => {
  const { memory, backend } = await openFake()
  const into = new Uint8Array(300)
  memory.read(0x10003, into)
  expect(into).toEqual(backend.bytes.slice(3, 303))
  backend.bytes.set([1, 2, 3, 4, 5, 6, 7, 0x88])
  expect(memory.readUint8(0x10007)).toBe(0x88)
  expect(memory.readUint16(0x10006)).toBe(0x8807)
  expect(memory.readUint32(0x10004)).toBe(0x88070605)
  expect(memory.readUint64(0x10000)).toBe(0x8807060504030201n)
})

test('words by the faster way that a backend has; where it has none, or a patch is there, by a read', async () => {
  const { memory, backend } = await openFake()
  backend.bytes.set([1, 2, 3, 4, 5, 6, 7, 8])
  const asked: number[] = []
  Object.assign(backend.memory, {
    readUint64: (address: number) => {
      asked.push(address)
      return address === 0x10000 ? 0x1234n : undefined
    },
  })
  expect(memory.readUint64(0x10000)).toBe(0x1234n)
  expect(memory.readUint64(0x10001)).toBe(memory.readUint64(0x10000 + 1))
  expect(() => memory.readUint64(0x1fff9)).toThrow(failing('BAD_ADDRESS', 0x20000))
  expect(asked).toEqual([0x10000, 0x10001, 0x10001, 0x1fff9])
  backend.memory.patches.add(0x10003, 0xaa, 4)
  expect(memory.readUint64(0x10000)).toBe(0x08070605aa030201n)
  expect(asked).toHaveLength(4)
})

test('a byte that is not memory: BAD_ADDRESS with the first such', async () => {
  const { memory } = await openFake()
  expect(() => memory.read(0xfff0, new Uint8Array(32))).toThrow(failing('BAD_ADDRESS', 0xfff0))
  expect(() => memory.read(0x1fff0, new Uint8Array(32))).toThrow(failing('BAD_ADDRESS', 0x20000))
  expect(memory.tryRead(0x1fff0, new Uint8Array(32))).toBe(false)
  expect(memory.tryRead(0x1fff0, new Uint8Array(16))).toBe(true)
  expect(() => memory.write(0x1fff0, new Uint8Array(32))).toThrow(failing('BAD_ADDRESS', 0x20000))
})

test('a buffer of gigabytes is no other than a small one', async () => {
  const { memory } = await openFake()
  const huge = new Uint8Array(2 ** 31)
  expect(() => memory.read(0x10000, huge)).toThrow(failing('BAD_ADDRESS', 0x20000))
  expect(() => memory.write(0x10000, huge)).toThrow(failing('BAD_ADDRESS', 0x20000))
  expect(memory.readMany([{ address: 0x10000, into: huge }])).toEqual([{ index: 0, address: 0x20000 }])
  expect(() => memory.read(2 ** 52 - 4096, huge)).toThrow(failing('BAD_ARGUMENT'))
})

test.each([-1, 0.5, Number.NaN, 2 ** 52, 2 ** 53])('the address %s is refused everywhere', async (address) => {
  const { memory } = await openFake()
  const byte = new Uint8Array(1)
  const calls = [
    () => memory.read(address, byte),
    () => memory.tryRead(address, byte),
    () => memory.write(address, byte),
    () => memory.readUint64(address),
    () =>
      memory.readMany([
        { address: 0x10000, into: byte },
        { address, into: byte },
      ]),
    () => memory.map(address, 1, () => 0),
    () => memory.setAccess(address, 1, 'r'),
  ]
  for (const call of calls) expect(call).toThrow(failing('BAD_ARGUMENT'))
})

test('no bytes are read from anywhere without asking the backend', async () => {
  const { memory } = await openFake()
  memory.read(0, new Uint8Array(0))
  memory.write(0, new Uint8Array(0))
  expect(memory.readMany([{ address: 0, into: new Uint8Array(0) }])).toEqual([])
})

test('scattered reads tell which failed, and where', async () => {
  const { memory, backend } = await openFake()
  const reads = [0x10000, 0x1ffff, 0x10008, 0x5000].map((address) => ({ address, into: new Uint8Array(2) }))
  expect(memory.readMany(reads)).toEqual([
    { index: 1, address: 0x20000 },
    { index: 3, address: 0x5000 },
  ])
  expect(reads[2]?.into).toEqual(backend.bytes.slice(8, 10))
})

test('numbers that do not fit are refused, and others are written little endian', async () => {
  const { memory, backend } = await openFake()
  expect(() => memory.writeUint8(0x10000, 256)).toThrow(failing('BAD_ARGUMENT'))
  expect(() => memory.writeUint16(0x10000, -1)).toThrow(failing('BAD_ARGUMENT'))
  expect(() => memory.writeUint64(0x10000, 2n ** 64n)).toThrow(failing('BAD_ARGUMENT'))
  memory.writeUint32(0x10000, 0xdeadbeef)
  memory.writeUint64(0x10004, 0x0102030405060708n)
  expect([...backend.bytes.subarray(0, 12)]).toEqual([0xef, 0xbe, 0xad, 0xde, 8, 7, 6, 5, 4, 3, 2, 1])
})

test('our breakpoints are hidden from reads and pieces, survive writes, and keep windows away', async () => {
  const { memory, backend } = await openFake()
  const own = backend.bytes[0x100] as number
  backend.bytes[0x100] = 0xcc
  backend.memory.patches.add(0x10100, own, 0xcc)
  expect(memory.readUint8(0x10100)).toBe(own)
  const into = new Uint8Array(4)
  memory.readMany([{ address: 0x100fe, into }])
  expect(into[2]).toBe(own)
  for await (const { bytes } of memory.pieces({ within: { start: 0x10000, length: 0x1000 } }))
    expect(bytes?.[0x100]).toBe(own)
  expect(backend.bytes[0x100]).toBe(0xcc)
  memory.writeUint32(0x100fe, 0x44332211)
  expect(backend.bytes[0x100]).toBe(0xcc)
  expect(memory.readUint32(0x100fe)).toBe(0x44332211)
  expect(() => memory.map(0x10000, 0x1000, () => 0)).toThrow(failing('BUSY'))
})

test('pieces cover all of memory in order, and only what was asked for', async () => {
  const { memory, backend } = await openFake()
  const seen: number[] = []
  const copy = new Uint8Array(backend.bytes.length)
  for await (const { address, length, bytes } of memory.pieces({ pieceLength: 0x3000 })) {
    seen.push(address)
    copy.set(bytes ?? new Uint8Array(length), address - backend.base)
  }
  expect(seen).toEqual([0x10000, 0x13000, 0x16000, 0x19000, 0x1c000, 0x1f000])
  expect(copy).toEqual(backend.bytes)
  const within = { start: 0x1ff00, length: 0x10000 }
  for await (const piece of memory.pieces({ within })) expect(piece).toMatchObject({ address: 0x1ff00, length: 0x100 })
})

test.each([0, 1, 4095, 4097, -4096, Number.NaN])('pieces of %s bytes are refused', async (pieceLength) => {
  const { memory } = await openFake()
  await expect(memory.pieces({ pieceLength })[Symbol.asyncIterator]().next()).rejects.toEqual(failing('BAD_ARGUMENT'))
})

test('a window is the guest itself, and is given back also when its user throws', async () => {
  const { memory, backend } = await openFake()
  memory.map(0x10010, 4, (window) => window.fill(9))
  expect([...backend.bytes.subarray(0x10, 0x14)]).toEqual([9, 9, 9, 9])
  expect(() =>
    memory.map(0x10010, 4, () => {
      throw new Error('mine')
    }),
  ).toThrow('mine')
  expect(backend.log.calls).toEqual(['unmap', 'unmap'])
  expect(() => memory.map(0x1fff0, 0x20, () => 0)).toThrow(failing('BAD_ADDRESS', 0x20000))
  expect(() => memory.map(0x10000, 0, () => 0)).toThrow(failing('BAD_ARGUMENT'))
  expect(() => memory.map(0x10000, 2 ** 30 + 1, () => 0)).toThrow(failing('BAD_ARGUMENT'))
})

test('an access that is none is refused', async () => {
  const { memory } = await openFake()
  expect(() => memory.setAccess(0x10000, 1, 'wr' as 'rw')).toThrow(failing('BAD_ARGUMENT'))
})
