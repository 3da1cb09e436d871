import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { open, supports } from '@microvmi/core'
import { knownPage, monitor, prepared, type QemuOptions, startQemu } from '@microvmi/lab-qemu'
import { describe, expect, test } from 'vitest'
import { kvm } from './index.ts'

const ways = [
  ['shared', { ram: 'file' }, 'shared RAM, mapped'],
  ['shared', { ram: 'memfd' }, 'shared RAM, mapped'],
  ['process_vm', { ram: 'private' }, "QEMU's own memory, by process_vm_readv"],
  ['proc', { ram: 'private' }, "QEMU's own memory, by /proc/PID/mem"],
  ['qmp', { ram: 'private' }, 'QMP pmemsave (slow, reads only)'],
] as const

describe.each(ways)('by %s, RAM %j', (memory, options, description) => {
  test('reads what the guest says is there, and the dump is what QEMU saves', async (context) => {
    await using lab = await prepared(context, () => startQemu({ ...options, memoryMiB: 256, vcpus: 2 }))
    const facts = await lab.ready()
    await using vm = await open(kvm, { vm: lab.qmp, memory })
    expect(vm.info.details.memory).toBe(description)
    for (const [index, address] of facts.known.physical.entries()) {
      const page = new Uint8Array(4096)
      vm.memory.read(address, page)
      expect(page).toEqual(knownPage(index))
    }
    const scattered = facts.known.physical.map((address) => ({ address: address + 16, into: new Uint8Array(100) }))
    scattered.push({ address: 0x8000_0000, into: new Uint8Array(8) })
    expect(vm.memory.readMany(scattered)).toEqual([{ index: 16, address: 0x8000_0000 }])
    expect(scattered[7]?.into).toEqual(knownPage(7).slice(16, 116))

    using _pause = vm.pause()
    const { ranges } = vm.memory.regions()
    for (const { start, length } of ranges) {
      const filename = join(lab.directory, 'saved')
      await monitor(lab.ownQmp, 'pmemsave', { val: start, size: length, filename })
      const saved = readFileSync(filename)
      rmSync(filename)
      let at = start
      for await (const piece of vm.memory.pieces({ within: { start, length } })) {
        expect(piece.address).toBe(at)
        const expected = saved.subarray(at - start, at - start + piece.length)
        expect(expected.equals(piece.bytes ?? Buffer.alloc(piece.length))).toBe(true)
        at += piece.length
      }
      expect(at).toBe(start + length)
    }
  })
})

test('writes reach the guest, and not its ROM', async (context) => {
  for (const ram of ['file', 'private'] as const) {
    await using lab = await prepared(context, () => startQemu({ ram, memoryMiB: 256 }))
    const { known } = await lab.ready()
    await using vm = await open(kvm, { vm: lab.qmp })
    if (!supports(vm, 'memory.write')) throw new Error('memory cannot be written')
    const address = known.physical[3] ?? 0
    vm.memory.writeUint64(address + 100, 0x1122_3344_5566_7788n)
    const words = await monitor(lab.ownQmp, 'human-monitor-command', { 'command-line': `xp /1gx ${address + 100}` })
    expect(words).toContain('0x1122334455667788')
    const rom = vm.memory.regions().ranges.find(({ kind }) => kind === 'rom')
    expect(() => vm.memory.writeUint8(rom?.start ?? 0, 1)).toThrow(expect.objectContaining({ code: 'BAD_ADDRESS' }))
  }
})

test.for(['q35', 'pc'] as const)('5 GiB on %s: the hole below 4 GiB is none of memory', async (machine, context) => {
  const options: QemuOptions = { machine, memoryMiB: 5 * 1024, paused: true }
  await using lab = await prepared(context, () => startQemu(options))
  await using vm = await open(kvm, { vm: lab.qmp })
  const { ranges } = vm.memory.regions()
  const ram = ranges.filter(({ kind }) => kind === 'ram')
  expect(ram.reduce((sum, { length }) => sum + length, 0)).toBeGreaterThan(5 * 2 ** 30 - 2 ** 20)
  const low = ram.filter(({ start }) => start < 2 ** 32).at(-1)
  const end = (low?.start ?? 0) + (low?.length ?? 0)
  expect(end).toBe(machine === 'q35' ? 2 * 2 ** 30 : 3 * 2 ** 30)
  const into = new Uint8Array(16)
  expect(() => vm.memory.read(end - 8, into)).toThrow(expect.objectContaining({ code: 'BAD_ADDRESS', address: end }))
  if (!supports(vm, 'memory.write')) throw new Error('memory cannot be written')
  const last = ram.at(-1)
  const top = (last?.start ?? 0) + (last?.length ?? 0)
  vm.memory.writeUint64(top - 8, 42n)
  expect(vm.memory.readUint64(top - 8)).toBe(42n)
  // Across the border of two windows of 1 GiB.
  vm.memory.write(2 ** 30 - 4, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))
  expect(vm.memory.readUint64(2 ** 30 - 4)).toBe(0x0807060504030201n)
  expect(() => vm.memory.read(top - 8, into)).toThrow(expect.objectContaining({ code: 'BAD_ADDRESS', address: top }))
})
