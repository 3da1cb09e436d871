import { type Provocations, register } from '@microvmi/conformance'
import { afterAll, describe, test, vi } from 'vitest'
import { CONTROL_REGISTER, DESCRIPTOR, MSR, REASON } from './abi/vm-event.ts'
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

const PAGE = 4096
const KNOWN = { address: 0x4000, bytes: Uint8Array.from({ length: 3 * PAGE }, (_, index) => (index * 7) % 251) }

let peer = new Peer()
let guest = new PeerDomain(5, 'debian')

function bringUp(): void {
  peer = new Peer()
  guest = new PeerDomain(5, 'debian')
  guest.memory.write(KNOWN.address, KNOWN.bytes)
  peer.domains.push(guest)
  host.peer = peer
}

/** MSR_TSC_AUX and MSR_LSTAR (Linux, asm/msr-index.h). */
const TSC_AUX = 0xc000_0103
const LSTAR = 0xc000_0082

/** What each vCPU does in turn: the requests that Xen makes of it where it is armed. */
const PROGRAM: readonly (readonly [armed: string, reason: number, more: (slot: DataView) => void])[] = [
  [
    'cr',
    REASON.controlRegister,
    (slot) => {
      slot.setUint32(CONTROL_REGISTER.index, 1, true)
      slot.setBigUint64(CONTROL_REGISTER.old, 0x1000n, true)
      slot.setBigUint64(CONTROL_REGISTER.next, 0x2000n, true)
    },
  ],
  [
    'msr',
    REASON.msr,
    (slot) => {
      slot.setBigUint64(MSR.index, BigInt(TSC_AUX), true)
      slot.setBigUint64(MSR.old, 1n, true)
      slot.setBigUint64(MSR.next, 2n, true)
    },
  ],
  ['descriptor', REASON.descriptor, (slot) => slot.setUint8(DESCRIPTOR.table, 2)],
  ['hypercall', REASON.guestRequest, () => {}],
]

const turns = [0, 0]
const running = setInterval(() => {
  for (const vcpu of turns.keys()) {
    if (guest.isDestroyed || !guest.runs(vcpu)) continue
    const turn = (turns[vcpu] ?? 0) + 1
    turns[vcpu] = turn
    const [armed, reason, more] = PROGRAM[turn % PROGRAM.length] ?? []
    if (armed !== undefined && guest.isMonitored && guest.armed.has(armed)) guest.request(vcpu, reason ?? 0, more)
  }
}, 1)

const provoke: Provocations = {
  cr: { request: { kind: 'cr', register: 'cr3' }, never: [{ kind: 'cr', register: 'cr3', mask: 1n }], everyVcpu: true },
  msr: { request: { kind: 'msr', msr: TSC_AUX }, never: [{ kind: 'msr', msr: LSTAR }], everyVcpu: true },
  descriptor: { request: { kind: 'descriptor' }, everyVcpu: true },
  hypercall: { request: { kind: 'hypercall' }, everyVcpu: true },
}

// Breakpoints, traps and what the guest sees of an answer need a processor: the lab has one.
register(
  {
    driver: xen,
    guest() {
      if (guest.isDestroyed || host.peer === undefined) bringUp()
      return {
        vm: 'debian',
        sessions: 'several',
        vcpuCount: 2,
        memory: {
          known: [KNOWN],
          end: guest.memory.length,
          hole: { start: guest.memory.length, length: 2 * PAGE },
          scratch: { address: 0x1_0000, length: 4 * PAGE },
        },
        registers: { absent: ['tsc', 'cr8', 'xcr0', 'pat', 'apicBase'], writable: { cr2: 0x1234_5000n } },
        provoke,
        progress: () => turns[0] ?? 0,
        progressOf: (_, vcpu) => turns[vcpu],
        vanish: () => {
          guest.isDestroyed = true
          peer.released.raise()
        },
      }
    },
  },
  { describe, test, after: afterAll },
)
afterAll(() => clearInterval(running))
