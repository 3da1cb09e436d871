import { open } from '@microvmi/core'
import { GUEST, knownContent, prepared, startVirtualBox, type VirtualBoxLab } from '@microvmi/lab-virtualbox'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { virtualbox } from './driver.ts'

const PAGE = 4096
let lab: VirtualBoxLab | undefined
let reason = 'the lab is not up'

/** Quotes, a slash and unicode: no shell is involved, and no path is made of it. */
const NAME = `a "quoted" 'name' & ünïcode`

beforeAll(async () => {
  const skipping = {
    skip(why: string): never {
      reason = why
      throw new Error(why)
    },
  }
  await prepared(skipping, async () => {
    lab = await startVirtualBox({ vcpus: 2, name: NAME })
  }).catch((error) => {
    if (error.message !== reason) throw error
  })
})
beforeEach(({ skip }) => {
  if (!lab) skip(reason)
})
afterAll(() => lab?.stop())

function opening(vm: string | undefined = lab?.name) {
  if (!lab || vm === undefined) throw new Error(reason)
  const { vboxmanage, directory } = lab
  return open(virtualbox, { vm, vboxmanage, directory, timeout: 15_000, require: ['memory.read', 'memory.write'] })
}

describe('a VM with its debug console', () => {
  test('is opened by name and by UUID', async () => {
    const byName = await opening()
    const { id, name, vcpuCount, info } = byName
    await byName.close()
    expect({ name, vcpuCount }).toEqual({ name: NAME, vcpuCount: 2 })
    expect(info.hypervisor).toMatch(/^VirtualBox 7\./)
    const byId = await opening(id.toUpperCase())
    expect(byId.name).toBe(NAME)
    await byId.close()
  })

  test('gives the same memory by its dump as by its console', async () => {
    await using vm = await opening()
    const lease = vm.pause()
    const page = new Uint8Array(PAGE)
    const { ranges } = vm.memory.regions()
    let [total, compared, isAscending, last] = [0, 0, true, -1]
    for await (const { address, length, bytes } of vm.memory.pieces()) {
      isAscending &&= address > last
      last = address
      total += length
      const at = (compared * 7 * PAGE) % (length - (length % PAGE) || PAGE)
      vm.memory.read(address + at, page)
      expect(Buffer.compare(page, bytes ? bytes.subarray(at, at + PAGE) : new Uint8Array(PAGE))).toBe(0)
      compared += 1
    }
    expect(total).toBe(ranges.reduce((sum, { length }) => sum + length, 0))
    expect(isAscending).toBe(true)
    expect(compared).toBeGreaterThan(60)
    lease.end()
  })

  test('gives the known content in pieces within a range, whichever way', async () => {
    await using vm = await opening()
    for (const length of [GUEST.knownLength, 2 ** 20]) {
      const found: number[] = []
      for await (const piece of vm.memory.pieces({ within: { start: GUEST.known, length }, pieceLength: PAGE })) {
        if (found.length < GUEST.knownLength) found.push(...(piece.bytes ?? new Uint8Array(piece.length)))
      }
      expect(Buffer.compare(Uint8Array.from(found), knownContent())).toBe(0)
    }
  })

  test('switches between its two address spaces while it is read', async () => {
    await using vm = await opening()
    const seen = new Set<bigint>()
    for (let tries = 0; tries < 60 && seen.size < 2; tries++) seen.add(vm.readRegisters(0).cr3)
    expect([...seen].sort()).toEqual(GUEST.tables)
  })

  test('has registers to write on every vCPU', async () => {
    await using vm = await open(virtualbox, {
      vm: NAME,
      vboxmanage: lab?.vboxmanage ?? '',
      timeout: 15_000,
      require: ['registers.write'],
    })
    for (const vcpu of [0, 1]) {
      const before = vm.readRegisters(vcpu).r15
      vm.writeRegisters(vcpu, { r15: 0xfeed_0000_0000_0000n + BigInt(vcpu) })
      expect(vm.readRegisters(vcpu).r15).toBe(0xfeed_0000_0000_0000n + BigInt(vcpu))
      expect(vm.readRegisters(1 - vcpu).r15).not.toBe(0xfeed_0000_0000_0000n + BigInt(vcpu))
      vm.writeRegisters(vcpu, { r15: before })
    }
    expect(vm.runState()).toBe('running')
  })
})
