import { list, type MicrovmiError, open } from '@microvmi/core'
import { beforeEach, expect, test, vi } from 'vitest'
import { POSSIBLE, PROMISES } from './capabilities.ts'
import { xen } from './index.ts'
import { Peer } from './peer.testing.ts'
import { PeerDomain } from './peer-domain.testing.ts'
import { ERRNO } from './xen-errors.ts'

const host = vi.hoisted(() => ({ peer: undefined as unknown }))
vi.mock('./libraries.ts', () => ({
  libraries: () => (host.peer as Peer).libraries,
  errno: () => (host.peer as Peer).errno,
}))
vi.mock('node:fs', async (original) => ({ ...(await original<object>()), existsSync: () => true }))

const PAGE = 4096
const code = (wanted: MicrovmiError['code']) => expect.objectContaining({ code: wanted })

let peer: Peer
let guest: PeerDomain

beforeEach(() => {
  peer = new Peer()
  guest = new PeerDomain(5, 'debian')
  guest.pv = 64
  peer.domains.push(guest)
  host.peer = peer
})

const opened = () => open(xen, { vm: 'debian' })

test('a PV domain has what is promised, and says why it has nothing else', async () => {
  await using vm = await opened()
  expect(vm.info.details).toMatchObject({ domid: 5, type: 'PV' })
  expect([...vm.capabilities]).toEqual([...PROMISES])
  for (const name of POSSIBLE) {
    await expect(open(xen, { vm: 'debian', require: [name] })).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('type="pvh" or "hvm"'),
    })
  }
})

test('one of 32 bits is listed with the reason why it cannot be opened', async () => {
  guest.pv = 32
  const { vms } = await list({ driver: xen })
  expect(vms).toEqual([expect.objectContaining({ hindrance: expect.stringContaining('32 bits') })])
  await expect(opened()).rejects.toEqual(code('UNSUPPORTED'))
})

test('one that goes while it is listed is no error', async () => {
  peer.failing.set('xc_domain_get_guest_width', ERRNO.ESRCH)
  const { vms, failures } = await list({ driver: xen })
  expect(failures).toEqual([])
  expect(vms).toHaveLength(1)
})

test('its layout is the frames that are its own, and is told anew when it has another number of them', async () => {
  for (const frame of [0, 3, 4, 63]) guest.memory.missing.add(frame)
  guest.memory.add(2000)
  await using vm = await opened()
  const frames = () => vm.memory.regions().ranges.map(({ start, length }) => [start / PAGE, length / PAGE])
  expect(frames()).toEqual([
    [1, 2],
    [5, 58],
    [2000, 1],
  ])
  const { generation } = vm.memory.regions()
  guest.memory.remove(2000)
  expect(frames()).toEqual([
    [1, 2],
    [5, 58],
  ])
  expect(vm.memory.regions().generation).not.toBe(generation)
})

test('nothing is kept mapped for writing, and the domain stands still while it is', async () => {
  const maps: { readonly protection: number; readonly pauses: number }[] = []
  const { map } = peer.libraries.foreignmemory
  const libraries = peer.libraries
  const foreignmemory: typeof libraries.foreignmemory = {
    ...libraries.foreignmemory,
    map: (handle, domid, protection, pages, frames, errors) => {
      maps.push({ protection, pauses: guest.pauses })
      return map(handle, domid, protection, pages, frames, errors)
    },
  }
  vi.spyOn(peer, 'libraries', 'get').mockReturnValue({ ...libraries, foreignmemory })
  await using vm = await opened()
  vm.memory.read(0x1000, new Uint8Array(64))
  expect(maps).toEqual([{ protection: 1, pauses: 0 }])
  vm.memory.write(0x1000, Uint8Array.of(7))
  expect(maps.at(-1)).toEqual({ protection: 3, pauses: 1 })
  vm.memory.map(0x1000, 1, (window) => {
    expect(window[0]).toBe(7)
    expect(guest.pauses).toBe(1)
  })
  expect(guest.pauses).toBe(0)
  expect(() =>
    vm.memory.map(0x1000, 1, () => {
      throw new Error('mine')
    }),
  ).toThrow('mine')
  expect(guest.pauses).toBe(0)
})

test('a page table is read and not written; what is not there is BAD_ADDRESS; nothing of either is written', async () => {
  guest.memory.tables.add(9)
  guest.memory.missing.add(12)
  guest.memory.write(8 * PAGE, new Uint8Array(8 * PAGE).fill(0x11))
  await using vm = await opened()
  const bytes = new Uint8Array(2 * PAGE).fill(0x22)
  expect(vm.memory.readUint8(9 * PAGE)).toBe(0x11)
  expect(() => vm.memory.write(8 * PAGE, bytes)).toThrow(code('UNSUPPORTED'))
  expect(() => vm.memory.map(9 * PAGE, 8, () => {})).toThrow(code('UNSUPPORTED'))
  expect(() => vm.memory.write(11 * PAGE, bytes)).toThrow(
    expect.objectContaining({ code: 'BAD_ADDRESS', address: 12 * PAGE }),
  )
  expect(() => vm.memory.map(12 * PAGE, 8, () => {})).toThrow(code('BAD_ADDRESS'))
  expect(vm.memory.readUint8(8 * PAGE)).toBe(0x11)
  expect(vm.memory.readUint8(11 * PAGE)).toBe(0x11)
  expect(guest.pauses).toBe(0)
})

test('a vCPU that was never brought up has no registers', async () => {
  await using vm = await opened()
  peer.failing.set('xc_vcpu_getcontext', ERRNO.ENODATA)
  expect(() => vm.readRegisters(1)).toThrow('has not brought it up')
  expect(() => vm.writeRegisters(1, { rax: 1n })).toThrow('has not brought it up')
  expect(guest.pauses).toBe(0)
  peer.failing.set('xc_vcpu_getcontext', ERRNO.EINVAL)
  expect(() => vm.readRegisters(1)).toThrow(code('HYPERVISOR'))
})
