import { open } from '@microvmi/core'
import { beforeEach, expect, test, vi } from 'vitest'
import { xen } from './index.ts'
import { Peer } from './peer.testing.ts'
import { IN_SERVICE, PeerDomain, REQUESTED } from './peer-domain.testing.ts'

const host = vi.hoisted(() => ({ peer: undefined as unknown }))
vi.mock('./libraries.ts', () => ({
  libraries: () => (host.peer as Peer).libraries,
  errno: () => (host.peer as Peer).errno,
}))
vi.mock('./session-note.ts', async () => ({ SessionNote: (await import('./peer-note.testing.ts')).PeerNote }))
vi.mock('node:fs', async (original) => ({ ...(await original<object>()), existsSync: () => true }))

const VECTOR = 0xf3
/** struct hvm_hw_cpu (hvm/save.h). */
const [RFLAGS, DR0] = [648, 688]
const INTERRUPTS_ON = 0x202n

let guest: PeerDomain

beforeEach(() => {
  const peer = new Peer()
  guest = new PeerDomain(5, 'debian')
  peer.domains.push(guest)
  host.peer = peer
})

const registersOf = (vcpu: number) => new DataView(guest.vcpus[vcpu]?.context.buffer ?? new ArrayBuffer(0))
const lapicOf = (vcpu: number) => [...(guest.vcpus[vcpu]?.lapic ?? [])]

test('an interrupt that comes while a register is written reaches its vCPU, and all of them go on', async () => {
  await using vm = await open(xen, { vm: 'debian' })
  guest.afterSave = () => guest.interrupt(1, VECTOR, REQUESTED)
  vm.writeRegisters(0, { dr0: 0x1234n })
  const requested = lapicOf(1)
  guest.interrupt(1, VECTOR, REQUESTED)
  expect(requested).toEqual(lapicOf(1))
  expect(requested.some((byte) => byte !== 0)).toBe(true)
  expect([registersOf(0).getBigUint64(DR0, true), registersOf(1).getBigUint64(DR0, true)]).toEqual([0x1234n, 0n])
  expect([guest.runs(0), guest.runs(1)]).toEqual([true, true])
})

test('a vCPU that is about to take an interrupt takes it first', async () => {
  await using vm = await open(xen, { vm: 'debian' })
  let saves = 0
  guest.afterSave = () => {
    saves += 1
  }
  registersOf(1).setBigUint64(RFLAGS, INTERRUPTS_ON, true)
  guest.interrupt(1, VECTOR, IN_SERVICE)
  vm.writeRegisters(0, { dr0: 0x1234n })
  expect([saves, registersOf(0).getBigUint64(DR0, true), guest.pauses]).toEqual([2, 0x1234n, 0])
})

test('where it cannot, as the VM is paused: BUSY, what to do, and nothing written', async () => {
  await using vm = await open(xen, { vm: 'debian' })
  registersOf(1).setBigUint64(RFLAGS, INTERRUPTS_ON, true)
  guest.interrupt(1, VECTOR, IN_SERVICE)
  const lease = vm.pause()
  const refused = expect.objectContaining({ code: 'BUSY', message: expect.stringContaining('resume it') })
  expect(() => vm.writeRegisters(0, { dr0: 0x1234n })).toThrow(refused)
  expect([registersOf(0).getBigUint64(DR0, true), guest.pauses]).toEqual([0n, 1])
  // What touches one vCPU alone is written all the same.
  vm.writeRegisters(0, { rax: 7n })
  expect(vm.readRegisters(0).rax).toBe(7n)
  lease.end()
})
