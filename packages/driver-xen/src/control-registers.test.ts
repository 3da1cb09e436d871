import { setTimeout } from 'node:timers/promises'
import { open, type Reply } from '@microvmi/core'
import { beforeEach, expect, test, vi } from 'vitest'
import { abiOf } from './abi/versions.ts'
import { CONTROL_REGISTER, FLAG, REASON, SLOT } from './abi/vm-event.ts'
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

const [OLD, NEW] = [0x1000n, 0x2000n]
/** VM_EVENT_X86_CR3, VM_EVENT_X86_XCR0. */
const [CR3, XCR0] = [1, 3]
/** In struct hvm_hw_cpu (hvm/save.h). */
const CR3_OFFSET = 672

let peer: Peer
let guest: PeerDomain

beforeEach(() => {
  peer = new Peer()
  guest = new PeerDomain(5, 'debian')
  peer.domains.push(guest)
  host.peer = peer
})

/** What a write of a control register leads to: the response's flags, and CR3 as it was loaded, if it was. */
async function answered(minor: number, reply: Reply, index = CR3): Promise<{ flags: number; cr3: bigint }> {
  peer.minor = minor
  peer.control = `libxenctrl.so.4.${minor}`
  guest.abi = abiOf({ major: 4, minor, extra: '' })
  await using vm = await open(xen, { vm: 'debian', require: ['events.cr', 'reply.deny', 'reply.value'] })
  const register = index === CR3 ? 'cr3' : 'xcr0'
  const intercept = vm.intercept({ kind: 'cr', register }, () => reply)
  const ended = intercept.ended.then(
    () => undefined,
    (error: unknown) => error,
  )
  guest.request(0, REASON.controlRegister, (slot) => {
    slot.setUint32(CONTROL_REGISTER.index, index, true)
    slot.setBigUint64(CONTROL_REGISTER.old, OLD, true)
    slot.setBigUint64(CONTROL_REGISTER.next, NEW, true)
  })
  const end = performance.now() + 10_000
  while (guest.vcpus[0]?.isWaiting !== false) {
    if (performance.now() > end) throw new Error('not answered within ten seconds')
    await setTimeout(1)
  }
  intercept.close()
  const error = await ended
  if (error !== undefined) throw error
  const slot = new DataView(guest.responses.at(-1)?.slot.buffer ?? new ArrayBuffer(0))
  const context = guest.vcpus[0]?.context ?? new Uint8Array(0)
  const cr3 = new DataView(context.buffer, context.byteOffset).getBigUint64(CR3_OFFSET, true)
  return { flags: slot.getUint32(SLOT.flags, true), cr3 }
}

test('before Xen 4.14 the write waits: denied, it is left out, and no register is loaded', async () => {
  expect(await answered(13, { deny: true })).toEqual({ flags: FLAG.vcpuPaused | FLAG.deny, cr3: 0n })
})

test('with another value it is left out too, or it would come behind that', async () => {
  expect(await answered(13, { value: 0x3000n })).toEqual({ flags: FLAG.vcpuPaused | FLAG.deny, cr3: 0x3000n })
})

test.each([14, 17, 20])('on Xen 4.%i it has been made: denied, the old value is put back', async (minor) => {
  expect((await answered(minor, { deny: true })).cr3).toBe(OLD)
  expect((await answered(minor, { value: 0x3000n })).cr3).toBe(0x3000n)
})

test('let pass, nothing is left out and nothing is loaded', async () => {
  expect(await answered(13, {})).toEqual({ flags: FLAG.vcpuPaused, cr3: 0n })
})

test('XCR0 is written whatever the answer: deny and value are UNSUPPORTED, and the guest goes on', async () => {
  const refused = expect.objectContaining({ code: 'UNSUPPORTED', message: expect.stringContaining('XCR0') })
  await expect(answered(17, { deny: true }, XCR0)).rejects.toEqual(refused)
  await expect(answered(17, { value: 7n }, XCR0)).rejects.toEqual(refused)
  expect(guest.runs(0)).toBe(true)
})
