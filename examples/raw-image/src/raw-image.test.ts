import { chmodSync, mkdirSync, readFileSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { list, type MicrovmiError, open } from '@microvmi/core'
import { afterAll, expect, test } from 'vitest'
import { imageDirectory, pattern } from './image.testing.ts'
import { rawImage } from './index.ts'

const directory = imageDirectory()
afterAll(directory.remove)

const fails = (code: string) =>
  expect.objectContaining<Partial<MicrovmiError>>({ name: 'MicrovmiError', code: code as MicrovmiError['code'] })

/** Runs something without root's rights. */
async function asNobody(run: () => Promise<void>): Promise<void> {
  if (process.getuid?.() !== 0 || !process.seteuid) return run()
  process.seteuid(65534)
  try {
    await run()
  } finally {
    process.seteuid(0)
  }
}

test('a file is memory from address 0 to its end', async () => {
  const path = directory.make('plain.raw', pattern(0, 8192))
  const vm = await open(rawImage, { vm: path })
  expect(vm.name).toBe('plain.raw')
  expect(vm.vcpuCount).toBe(1)
  expect(vm.memory.regions().ranges).toEqual([{ start: 0, length: 8192, kind: 'ram' }])
  expect(vm.memory.readUint32(4096)).toBe(4096)
  expect(() => vm.memory.readUint32(8190)).toThrow(expect.objectContaining({ code: 'BAD_ADDRESS', address: 8192 }))
  await vm.close()
})

test('names with spaces, slashes, quotes, ?, # and other scripts open by target', async () => {
  const path = directory.make(`a 'b' "c" ? # % 記憶.raw`, pattern(0, 4096))
  const target = `image:${path.replaceAll('%', '%25').replaceAll('?', '%3f')}?writable=true&regions=0x100+0x200`
  const vm = await open(target, { require: ['memory.write', 'memory.read'] })
  vm.memory.writeUint32(0x100, 0xdeadbeef)
  expect(() => vm.memory.writeUint32(0x2fe, 1)).toThrow(fails('BAD_ADDRESS'))
  await vm.close()
  expect(readFileSync(path).readUInt32LE(0x100)).toBe(0xdeadbeef)
  expect(readFileSync(path).readUInt16LE(0x2fe)).toBe(0)
})

test('writing is asked for', async () => {
  const vm = directory.make('read-only.raw', pattern(0, 4096))
  await expect(open(rawImage, { vm, require: ['memory.write'] })).rejects.toThrow(/writable: true/)
})

test('nothing is listed', async () => {
  expect(await list({ driver: rawImage })).toEqual({ vms: [], failures: [] })
})

test.each(['none.raw', 'file.raw/none.raw'])('no such file: %s', async (name) => {
  directory.make('file.raw', pattern(0, 4096))
  await expect(open(rawImage, { vm: join(directory.path, name) })).rejects.toThrow(fails('VM_NOT_FOUND'))
})

test('a name that is too long, in a message that is not', async () => {
  await expect(open(rawImage, { vm: 'x'.repeat(100_000) })).rejects.toThrow(fails('VM_NOT_FOUND'))
  await expect(open(rawImage, { vm: 'x'.repeat(100_000) })).rejects.toThrow(/^.{300,500}$/)
})

test.each([false, true])('a directory, writable: %s', async (writable) => {
  const vm = join(directory.path, `directory-${writable}`)
  mkdirSync(vm)
  await expect(open(rawImage, { vm, writable })).rejects.toThrow(fails('BAD_ARGUMENT'))
})

test('a path with a NUL in it', async () => {
  await expect(open(rawImage, { vm: 'a\0b' })).rejects.toThrow(fails('BAD_ARGUMENT'))
})

test.skipIf(process.platform === 'win32')('a device', async () => {
  await expect(open(rawImage, { vm: '/dev/zero' })).rejects.toThrow(fails('BAD_ARGUMENT'))
})

test.skipIf(process.platform === 'win32')('no right', async () => {
  const vm = directory.make('secret.raw', pattern(0, 4096))
  chmodSync(directory.path, 0o755)
  chmodSync(vm, 0o000)
  await asNobody(() => expect(open(rawImage, { vm })).rejects.toThrow(fails('DENIED')))
  chmodSync(vm, 0o444)
  await asNobody(() => expect(open(rawImage, { vm, writable: true })).rejects.toThrow(fails('DENIED')))
})

test('an aborted opening', async () => {
  const vm = directory.make('aborted.raw', pattern(0, 4096))
  await expect(open(rawImage, { vm, signal: AbortSignal.abort() })).rejects.toThrow(fails('ABORTED'))
})

test('cut short while it is open: gone, and never made longer again', async () => {
  const path = directory.make('short.raw', pattern(0, 8192))
  const vm = await open(rawImage, { vm: path, writable: true, require: ['memory.write'] })
  truncateSync(path, 4096)
  expect(() => vm.memory.writeUint32(6000, 1)).toThrow(fails('VM_GONE'))
  expect(() => vm.memory.readUint32(6000)).toThrow(fails('VM_GONE'))
  expect(() => vm.memory.readUint32(0)).toThrow(fails('VM_GONE'))
  expect(() => vm.memory.tryRead(9000, new Uint8Array(1))).toThrow(fails('VM_GONE'))
  expect(() => vm.memory.regions()).toThrow(fails('VM_GONE'))
  await vm.close()
  expect(readFileSync(path).length).toBe(4096)
})

test('a copy that was cut short is told of', async () => {
  const vm = await open(rawImage, { vm: directory.make('odd.raw', pattern(0, 5000)) })
  expect(vm.info.warnings).toEqual([expect.stringContaining('904 bytes')])
  await vm.close()
})
