import { list, open } from '@microvmi/core'
import { knownPage } from '@microvmi/lab-qemu'
import { type GuestFacts, startGuest, type XenGuest } from '@microvmi/lab-xen'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { xen } from './index.ts'

let guest: XenGuest
let facts: GuestFacts

beforeAll(async () => {
  guest = await startGuest({ type: 'hvm' })
  facts = await guest.ready()
})
afterAll(() => guest.destroy())

test('an HVM domain is listed, and told from PVH', async () => {
  const { vms } = await list({ driver: xen, timeout: 20_000 })
  expect(vms).toEqual([expect.objectContaining({ name: guest.name, id: guest.uuid, state: 'running' })])
  await using vm = await open(xen, { vm: guest.name })
  expect(vm.info.details).toMatchObject({ domid: guest.domid, type: 'HVM' })
})

test('its memory and registers', async () => {
  await using vm = await open(xen, { vm: guest.uuid })
  const page = new Uint8Array(4096)
  for (const [index, address] of facts.known.physical.entries()) {
    vm.memory.read(address, page)
    expect(Buffer.compare(page, knownPage(index))).toBe(0)
  }
  const { ranges } = vm.memory.regions()
  for (const { start, end } of facts.ram) {
    expect(ranges.some((range) => range.start <= start && end <= range.start + range.length)).toBe(true)
  }
  const lease = vm.pause()
  const { cr3, efer, r11 } = vm.readRegisters(0)
  expect(cr3).not.toBe(0n)
  expect((efer ?? 0n) & 0x500n).toBe(0x500n)
  vm.writeRegisters(0, { r11: r11 ^ 1n })
  expect(vm.readRegisters(0).r11).toBe(r11 ^ 1n)
  vm.writeRegisters(0, { r11 })
  lease.end()
})

test.each([
  ['cr', { kind: 'cr', register: 'cr3' }],
  ['int3', { kind: 'int3' }],
  ['msr', { kind: 'msr', msr: 0xc000_0103, onChange: false }],
  ['cpuid', { kind: 'cpuid', leaf: 0x4000_0000 }],
] as const)('its events: %s, and it goes on', async (_, request) => {
  await using vm = await open(xen, {
    vm: guest.uuid,
    require: ['events.cr', 'events.int3', 'events.msr', 'events.cpuid', 'reply.reinject'],
  })
  let count = 0
  for await (const event of vm.intercept(request)) {
    expect(event.vcpu).toBe(0)
    count += 1
    if (count === 20) break
  }
  const before = guest.tick()?.turns ?? 0
  await expect.poll(() => guest.tick()?.turns ?? 0, { timeout: 20_000 }).toBeGreaterThan(before)
})

test('a breakpoint of ours is passed', async () => {
  await using vm = await open(xen, { vm: guest.uuid, require: ['events.breakpoint'] })
  const [mark] = facts.marks
  let count = 0
  for await (const event of vm.intercept({ kind: 'breakpoint', physicalAddress: mark?.physical ?? 0 })) {
    expect(event.address).toBe(mark?.landmark)
    count += 1
    if (count === 10) break
  }
  const byte = new Uint8Array(1)
  vm.memory.read(mark?.physical ?? 0, byte)
  expect(byte[0]).not.toBe(0xcc)
})
