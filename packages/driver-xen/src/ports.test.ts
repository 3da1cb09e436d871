import { setTimeout } from 'node:timers/promises'
import { open } from '@microvmi/core'
import { beforeEach, expect, test, vi } from 'vitest'
import { abiOf } from './abi/versions.ts'
import { FLAG, IO, READ_DATA, REASON, SLOT } from './abi/vm-event.ts'
import { xen } from './index.ts'
import { Peer } from './peer.testing.ts'
import { PeerDomain } from './peer-domain.testing.ts'

const host = vi.hoisted(() => ({ peer: undefined as unknown }))
vi.mock('./libraries.ts', () => ({
  libraries: () => (host.peer as Peer).libraries,
  errno: () => (host.peer as Peer).errno,
}))
vi.mock('./session-note.ts', async () => ({ SessionNote: (await import('./peer-note.testing.ts')).PeerNote }))
vi.mock('node:fs', async (original) => ({ ...(await original<object>()), existsSync: () => true }))

const PORT = 0x70

let peer: Peer
let guest: PeerDomain

beforeEach(() => {
  peer = new Peer()
  guest = new PeerDomain(5, 'debian')
  peer.domains.push(guest)
  host.peer = peer
  setVersion(20)
})

function setVersion(minor: number): void {
  peer.minor = minor
  peer.control = `libxenctrl.so.4.${minor}`
  guest.abi = abiOf({ major: 4, minor, extra: '' })
}

const opened = () =>
  open(xen, { vm: 'debian', require: ['events.io', 'reply.deny', 'reply.emulate', 'reply.registers'] })

/** A vCPU reads two bytes from a port. */
function read(vcpu: number, port: number): void {
  guest.request(vcpu, REASON.io, (slot) => {
    slot.setUint32(IO.bytes, 2, true)
    slot.setUint16(IO.port, port, true)
    slot.setUint8(IO.isIn, 1)
  })
}

/** The vCPU's next response. */
async function response(vcpu: number): Promise<DataView> {
  const end = performance.now() + 10_000
  while (guest.vcpus[vcpu]?.isWaiting !== false) {
    if (performance.now() > end) throw new Error('not answered within ten seconds')
    await setTimeout(1)
  }
  return new DataView(guest.responses.at(-1)?.slot.buffer ?? new ArrayBuffer(0))
}

const reasonOf = (slot: DataView) => slot.getUint32(SLOT.reason, true)
const flagsOf = (slot: DataView) => slot.getUint32(SLOT.flags, true)
const { vcpuPaused, emulate, emulateNoWrite, setEmulatedReadData, setRegisters } = FLAG

test('an access is told of, and made by Xen’s emulator: as a descriptor’s, for which Xen heeds the flag', async () => {
  await using vm = await opened()
  const seen: unknown[] = []
  const intercept = vm.intercept({ kind: 'io', port: PORT }, ({ vcpu, port, size, direction, complete }) => {
    seen.push({ vcpu, port, size, direction, complete })
  })
  expect([...guest.armed]).toEqual(['io'])
  for (const port of [PORT, PORT + 1]) {
    read(1, port)
    const slot = await response(1)
    expect(reasonOf(slot)).toBe(REASON.descriptor)
    expect(flagsOf(slot)).toBe(vcpuPaused | emulate)
  }
  expect(seen).toEqual([{ vcpu: 1, port: PORT, size: 2, direction: 'in', complete: true }])
  // No turn of the event loop: it is in the ring when the intercept ends.
  read(0, PORT)
  intercept.close()
  expect(flagsOf(await response(0))).toBe(vcpuPaused | emulate)
  expect(guest.armed.size).toBe(0)
})

test('of all ports: without those that Xen does not see', async () => {
  await using vm = await opened()
  const seen: unknown[] = []
  vm.intercept({ kind: 'io' }, ({ port, complete }) => {
    seen.push({ port, complete })
  })
  read(0, 0x3f8)
  await response(0)
  expect(seen).toEqual([{ port: 0x3f8, complete: false }])
  for (const port of [0x80, 0xed]) {
    expect(() => vm.intercept({ kind: 'io', port }, () => {})).toThrow(/0x80 and 0xed/)
  }
})

test('replies', async () => {
  await using vm = await opened()
  const data = Uint8Array.of(0x5a, 0xa5)
  const replies = [
    [{ deny: true }, REASON.descriptor, emulate | emulateNoWrite],
    [{ emulate: { data } }, REASON.descriptor, emulate | setEmulatedReadData],
    [{ registers: { rax: 1n } }, REASON.descriptor, emulate | setRegisters],
    // The instruction is behind the vCPU.
    [{ registers: { rip: 0x2001n } }, REASON.io, setRegisters],
    [{ deny: true, registers: { rip: 0x2001n } }, REASON.io, setRegisters],
  ] as const
  let turn = 0
  vm.intercept({ kind: 'io', port: PORT }, () => replies[turn]?.[0])
  for (const [, reason, flags] of replies) {
    read(0, PORT)
    const slot = await response(0)
    expect(reasonOf(slot)).toBe(reason)
    expect(flagsOf(slot)).toBe(vcpuPaused | flags)
    if (flags & setEmulatedReadData) {
      expect(slot.getUint32(READ_DATA.size, true)).toBe(2)
      expect(new Uint8Array(slot.buffer, READ_DATA.bytes, 2)).toEqual(data)
    }
    turn += 1
  }
})

test('there from 4.18 on, for domains without devices', async () => {
  const reason = async () => {
    await using vm = await open(xen, { vm: 'debian' })
    return vm.capabilities.has('events.io')
  }
  expect(await reason()).toBe(true)
  setVersion(17)
  expect(await reason()).toBe(false)
  setVersion(18)
  expect(await reason()).toBe(true)
  guest.hasDevices = true
  expect(await reason()).toBe(false)
  await expect(opened()).rejects.toThrow(/PVH domains alone/)
})
