import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Writable } from 'node:stream'
import type { MemoryPiece } from '@microvmi/core'
import { MicrovmiError } from '@microvmi/core'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type DumpProgress, dumpMemory } from './dump.ts'
import { vmOf } from './vm.testing.ts'
import { BLOCK } from './zeros.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'microvmi-dump-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const failing = (code: string) => expect.objectContaining({ name: 'MicrovmiError', code })

/** Three ranges: data with zeros inside, a hole that is known to be zero, and data behind a gap. */
function pieces(): MemoryPiece[] {
  const first = new Uint8Array(3 * BLOCK)
  first.fill(1, 0, BLOCK)
  first[2 * BLOCK + 5] = 7
  return [
    { address: 0, length: first.length, bytes: first },
    { address: first.length, length: 2 * BLOCK, bytes: undefined },
    { address: 8 * BLOCK, length: 100, bytes: new Uint8Array(100).fill(9) },
  ]
}

function image(): Buffer {
  const whole = Buffer.alloc(8 * BLOCK + 100)
  for (const { address, bytes } of pieces()) if (bytes) whole.set(bytes, address)
  return whole
}

const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

test.each([true, false])('the byte at an offset is the byte at that address; sparse: %s', async (sparse) => {
  const { vm, calls } = await vmOf(pieces)
  const path = join(directory, 'guest.raw')
  const result = await dumpMemory(vm, path, { sparse, sha256: true })
  expect(readFileSync(path).equals(image())).toBe(true)
  expect(result).toMatchObject({ length: image().length, sha256: digest(image()) })
  expect(result.written).toBe(sparse ? 2 * BLOCK + 100 : image().length)
  expect(calls).toEqual(['pause', 'resume'])
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(readdirSync(directory)).toEqual(['guest.raw'])
})

test('a sparse file takes no space for zeros', async () => {
  const { vm } = await vmOf(() => [{ address: 0, length: 64 * 2 ** 20, bytes: undefined }])
  const path = join(directory, 'zeros.raw')
  await dumpMemory(vm, path)
  const { size, blocks } = statSync(path)
  expect(size).toBe(64 * 2 ** 20)
  expect(blocks * 512).toBeLessThan(2 ** 20)
})

test('the image ends with RAM: ROM above is left out', async () => {
  const { vm } = await vmOf(pieces, 8 * BLOCK)
  const path = join(directory, 'guest.raw')
  const { length } = await dumpMemory(vm, path)
  expect(length).toBe(5 * BLOCK)
  expect(readFileSync(path).equals(image().subarray(0, 5 * BLOCK))).toBe(true)
})

test('a stream receives every byte, as slowly as it likes, and stays open', async () => {
  const { vm } = await vmOf(pieces)
  const stream = new PassThrough({ highWaterMark: 16 })
  const received: Buffer[] = []
  stream.on('data', (data) => received.push(Buffer.from(data)))
  const { sha256 } = await dumpMemory(vm, stream, { sha256: true })
  expect(Buffer.concat(received).equals(image())).toBe(true)
  expect(sha256).toBe(digest(image()))
  expect(stream.writableEnded).toBe(false)
})

test('a stream that fails, or was closed, ends the dump; the VM runs again', async () => {
  const { vm, calls } = await vmOf(pieces)
  const broken = new Writable({ write: (_chunk, _encoding, done) => done(new Error('no more')) })
  broken.on('error', () => undefined)
  await expect(dumpMemory(vm, broken)).rejects.toEqual(failing('STORAGE'))
  await expect(dumpMemory(vm, broken)).rejects.toThrow(/closed|no more/)
  expect(calls).toEqual(['pause', 'resume', 'pause', 'resume'])
})

test('a stream may keep what it got, and even change it', async () => {
  const reused = new Uint8Array(4096)
  const { vm } = await vmOf(function* () {
    for (const [index, fill] of [1, 2, 3].entries()) {
      reused.fill(fill)
      yield { address: index * 4096, length: 4096, bytes: reused }
    }
    yield { address: 3 * 4096, length: 4096, bytes: undefined }
  })
  const kept: Buffer[] = []
  const stream = new Writable({
    write(chunk, _encoding, done) {
      kept.push(chunk)
      done()
    },
  })
  await dumpMemory(vm, stream)
  expect(kept.map((chunk) => chunk[0])).toEqual([1, 2, 3, 0])
  for (const chunk of kept) chunk.fill(255)
  kept.length = 0
  await dumpMemory(vm, stream)
  expect(kept.at(-1)?.[0]).toBe(0)
})

test('a reader that does not read keeps nobody from aborting', async () => {
  const { vm, calls } = await vmOf(pieces)
  const stuck = new Writable({ write: () => undefined })
  const dumping = dumpMemory(vm, stuck, { signal: AbortSignal.timeout(50) })
  await expect(dumping).rejects.toEqual(failing('ABORTED'))
  expect(calls).toEqual(['pause', 'resume'])
})

test('hashing a hole of gigabytes lets the event loop run, and can be aborted', async () => {
  const { vm } = await vmOf(() => [{ address: 2 ** 36, length: 4096, bytes: new Uint8Array(4096) }])
  const dumping = dumpMemory(vm, join(directory, 'guest.raw'), { sha256: true, signal: AbortSignal.timeout(100) })
  await expect(dumping).rejects.toEqual(failing('ABORTED'))
})

test('whatever the pieces, file and stream are the same image', async () => {
  const piece = fc.record({
    gap: fc.nat(3),
    blocks: fc.integer({ min: 1, max: 3 }),
    fill: fc.constantFrom(undefined, 0, 5),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 6 }), fc.boolean(), async (shapes, sparse) => {
      const all: MemoryPiece[] = []
      let address = 0
      for (const { gap, blocks, fill } of shapes) {
        address += gap * 4096
        const length = blocks * 40_000
        all.push({ address, length, bytes: fill === undefined ? undefined : new Uint8Array(length).fill(fill) })
        address += length
      }
      const { vm } = await vmOf(() => all)
      const path = join(directory, 'any.raw')
      const file = await dumpMemory(vm, path, { sparse, overwrite: true, sha256: true })
      expect(file.sha256).toBe(digest(readFileSync(path)))
      expect(statSync(path).size).toBe(file.length)
      const stream = new PassThrough().resume()
      expect((await dumpMemory(vm, stream, { sha256: true })).sha256).toBe(file.sha256)
    }),
    { numRuns: 30 },
  )
})

test('a file that is there is refused before the VM is paused, and replaced only when told', async () => {
  const { vm, calls } = await vmOf(pieces)
  const path = join(directory, 'guest.raw')
  writeFileSync(path, 'precious')
  await expect(dumpMemory(vm, path)).rejects.toEqual(failing('EXISTS'))
  expect(readFileSync(path, 'utf8')).toBe('precious')
  expect(calls).toEqual([])
  await dumpMemory(vm, path, { overwrite: true })
  expect(readFileSync(path).equals(image())).toBe(true)
})

test('a file that comes while the dump runs is not replaced', async () => {
  const path = join(directory, 'guest.raw')
  const { vm } = await vmOf(function* () {
    yield* pieces()
    writeFileSync(path, 'precious')
  })
  rmSync(path, { force: true })
  await expect(dumpMemory(vm, path, { onProgress: () => undefined })).rejects.toEqual(failing('EXISTS'))
  expect(readFileSync(path, 'utf8')).toBe('precious')
  expect(readdirSync(directory)).toEqual(['guest.raw'])
})

test('a directory, a device, a link to nowhere in a place that is not there', async () => {
  const { vm } = await vmOf(pieces)
  for (const bad of [directory, '', `${directory}/new/`, 'a\0b', join(directory, 'x'.repeat(300))]) {
    await expect(dumpMemory(vm, bad)).rejects.toEqual(failing('BAD_ARGUMENT'))
  }
  await expect(dumpMemory(vm, join(directory, 'no', 'such', 'place'))).rejects.toEqual(failing('BAD_ARGUMENT'))
  if (process.platform !== 'win32') {
    await expect(dumpMemory(vm, '/dev/null', { overwrite: true })).rejects.toEqual(failing('BAD_ARGUMENT'))
    expect(statSync('/dev/null').isCharacterDevice()).toBe(true)
    const link = join(directory, 'link')
    symlinkSync(join(directory, 'elsewhere'), link)
    await expect(dumpMemory(vm, link)).rejects.toEqual(failing('EXISTS'))
  }
})

test('a place that may not be written to', async ({ skip }) => {
  if (process.platform === 'win32' || process.getuid?.() === 0) skip('root and Windows may write everywhere')
  const { vm } = await vmOf(pieces)
  const place = join(directory, 'locked')
  mkdirSync(place)
  chmodSync(place, 0o500)
  await expect(dumpMemory(vm, join(place, 'guest.raw'))).rejects.toEqual(failing('DENIED'))
})

test('a full disk and a read-only one: an error, no file, the VM runs again', async ({ skip }) => {
  const mounted = mount('size=200k')
  if (!mounted) skip('needs the right to mount a small tmpfs: run as root on Linux')
  try {
    const { vm, calls } = await vmOf(() => [{ address: 0, length: 2 ** 20, bytes: new Uint8Array(2 ** 20).fill(3) }])
    await expect(dumpMemory(vm, join(directory, 'guest.raw'))).rejects.toEqual(failing('STORAGE'))
    expect(readdirSync(directory)).toEqual([])
    expect(calls).toEqual(['pause', 'resume'])
    execFileSync('mount', ['-o', 'remount,ro', directory])
    await expect(dumpMemory(vm, join(directory, 'guest.raw'))).rejects.toThrow(/read-only/)
  } finally {
    execFileSync('umount', [directory])
  }
})

function mount(options: string): boolean {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return false
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', directory], { stdio: 'ignore' })
    return true
  } catch (error) {
    // In a container root may not mount either.
    if (typeof (error as { status?: number }).status === 'number') return false
    throw error
  }
}

test('an aborted dump leaves nothing and lets the VM run', async () => {
  const controller = new AbortController()
  const { vm, calls } = await vmOf(function* () {
    for (let address = 0; address < 100 * BLOCK; address += BLOCK) {
      yield { address, length: BLOCK, bytes: new Uint8Array(BLOCK).fill(1) }
      if (address > 0 && calls.length > 0) controller.abort('enough')
    }
  })
  const dumping = dumpMemory(vm, join(directory, 'guest.raw'), { signal: controller.signal })
  await expect(dumping).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' })
  expect(readdirSync(directory)).toEqual([])
  expect(calls).toEqual(['pause', 'resume'])
  await expect(dumpMemory(vm, join(directory, 'b'), { signal: AbortSignal.abort() })).rejects.toEqual(
    failing('ABORTED'),
  )
})

test('a VM that goes away in the middle: its error, and no file', async () => {
  let paused = false
  const { vm } = await vmOf(function* () {
    yield* pieces()
    if (paused) throw new MicrovmiError('VM_GONE', 'QEMU has ended')
  })
  const path = join(directory, 'guest.raw')
  paused = false
  await dumpMemory(vm, path)
  rmSync(path)
  paused = true
  await expect(dumpMemory(vm, path, { pause: false })).rejects.toEqual(failing('VM_GONE'))
  expect(existsSync(path)).toBe(false)
  expect(readdirSync(directory)).toEqual([])
})

test('progress ends with everything; without pause the VM is left alone', async () => {
  const { vm, calls } = await vmOf(pieces)
  const told: DumpProgress[] = []
  await dumpMemory(vm, join(directory, 'guest.raw'), { pause: false, onProgress: (progress) => told.push(progress) })
  const total = pieces().reduce((sum, { length }) => sum + length, 0)
  expect(told.at(-1)).toMatchObject({ done: total, total })
  expect(calls).toEqual([])
})
