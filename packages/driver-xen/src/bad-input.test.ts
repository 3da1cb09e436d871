import { setTimeout } from 'node:timers/promises'
import { type MicrovmiError, open } from '@microvmi/core'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { CONTROL_REGISTER, FLAG, REASON, SLOT } from './abi/vm-event.ts'
import { xen } from './index.ts'
import { Peer } from './peer.testing.ts'
import { PeerDomain } from './peer-domain.testing.ts'
import { PeerNote } from './peer-note.testing.ts'
import { ERRNO } from './xen-errors.ts'

const host = vi.hoisted(() => ({ peer: undefined as unknown }))
vi.mock('./libraries.ts', () => ({
  libraries: () => (host.peer as Peer).libraries,
  errno: () => (host.peer as Peer).errno,
}))
vi.mock('./session-note.ts', async () => ({ SessionNote: (await import('./peer-note.testing.ts')).PeerNote }))
vi.mock('node:fs', async (original) => ({ ...(await original<object>()), existsSync: () => true }))

let peer: Peer
let guest: PeerDomain
const LANDMARK = 0x3010

beforeEach(() => {
  peer = new Peer()
  guest = new PeerDomain(5, 'debian')
  peer.domains.push(guest)
  host.peer = peer
  PeerNote.left = undefined
  PeerNote.written = undefined
  PeerNote.isFull = false
})

const code = (wanted: MicrovmiError['code']) => expect.objectContaining({ code: wanted })
const openGuest = () => open(xen, { vm: 'debian', require: ['events.cr', 'events.breakpoint', 'events.int3'] })
const cr3Write = (slot: DataView) => {
  slot.setUint32(CONTROL_REGISTER.index, 1, true)
  slot.setBigUint64(CONTROL_REGISTER.old, 0x1000n, true)
  slot.setBigUint64(CONTROL_REGISTER.next, 0x2000n, true)
}
/** struct vm_event_debug: gfn, insn_length. */
const breakpoint = (physical: number) => (slot: DataView) => {
  slot.setBigUint64(24, BigInt(Math.floor(physical / 4096)), true)
  slot.setUint32(40, 1, true)
  slot.setBigUint64(SLOT.data + 152, BigInt(physical), true)
}
const settled = () => setTimeout(50)

describe('opening', () => {
  test('by name, number and UUID; dom0 and what is not there are VM_NOT_FOUND', async () => {
    for (const vm of ['debian', '5', '05000000-0000-0000-0000-000000000000']) {
      const found = await open(xen, { vm })
      expect(found.name).toBe('debian')
      await found.close()
    }
    for (const vm of ['0', 'Domain-0', '4294967301', 'x'.repeat(5000), '']) {
      await expect(open(xen, { vm })).rejects.toEqual(code(vm === '' ? 'BAD_ARGUMENT' : 'VM_NOT_FOUND'))
    }
  })

  test('two of one name are told apart by their numbers', async () => {
    peer.domains.push(new PeerDomain(6, 'debian'))
    await expect(open(xen, { vm: 'debian' })).rejects.toEqual(code('VM_AMBIGUOUS'))
    const vm = await open(xen, { vm: '6' })
    await vm.close()
  })

  test('without rights, with the library of another Xen, on an unknown Xen: DRIVER_UNAVAILABLE, and why', async () => {
    peer.failing.set('xc_interface_open', ERRNO.EACCES)
    await expect(openGuest()).rejects.toThrow(/run as root/)
    peer.failing.clear()
    peer.control = 'libxenctrl.so.4.14'
    await expect(openGuest()).rejects.toThrow(/libxenctrl is of 4\.14/)
    peer.control = 'libxenctrl.so.4.21'
    peer.minor = 21
    const probe = await xen.probe()
    expect(probe).toEqual({ usable: false, reason: expect.stringContaining('4.11 to 4.20') })
  })

  test('EPERM of a single call is DENIED', async () => {
    const vm = await openGuest()
    peer.failing.set('xc_domain_pause', ERRNO.EPERM)
    expect(() => vm.pause()).toThrow(code('DENIED'))
    peer.failing.clear()
    await vm.close()
    expect(guest.pauses).toBe(0)
  })

  test('a vCPU past the end', async () => {
    const vm = await openGuest()
    expect(() => vm.readRegisters(2)).toThrow(code('BAD_ARGUMENT'))
    await vm.close()
  })
})

describe('memory', () => {
  test('a page that is missing in the middle of a batch: its address, and nothing written', async () => {
    const vm = await openGuest()
    guest.memory.write(0x1f000, new Uint8Array(0x3000).fill(7))
    guest.memory.missing.add(0x20)
    expect(() => vm.memory.read(0x1f000, new Uint8Array(0x3000))).toThrow(/0x20000/)
    expect(() => vm.memory.write(0x1ff00, new Uint8Array(0x300).fill(9))).toThrow(/0x20000/)
    expect(guest.memory.read(0x1ff00, 0x100)).toEqual(new Uint8Array(0x100).fill(7))
    guest.memory.missing.clear()
    const into = new Uint8Array(0x3000)
    vm.memory.read(0x1f000, into)
    expect(into).toEqual(guest.memory.read(0x1f000, 0x3000))
    await vm.close()
  })
})

describe('memory that Xen does not map', () => {
  const read = (vm: Awaited<ReturnType<typeof openGuest>>) => vm.memory.read(0x2_0000, new Uint8Array(8))

  test.each([
    [ERRNO.EPERM, 'DENIED'],
    [ERRNO.ENOMEM, 'HYPERVISOR'],
  ] as const)('errno %i is no missing page: %s, with the call', async (errno, wanted) => {
    await using vm = await openGuest()
    peer.failing.set('xenforeignmemory_map', errno)
    const refused = expect.objectContaining({ code: wanted, message: expect.stringContaining('xenforeignmemory_map') })
    expect(() => read(vm)).toThrow(refused)
    peer.failing.clear()
    read(vm)
  })

  test('of a domain that has just been destroyed is VM_GONE', async () => {
    const vm = await openGuest()
    read(vm)
    guest.isDestroyed = true
    expect(() => vm.memory.read(0x3_0000, new Uint8Array(8))).toThrow(code('VM_GONE'))
    expect(() => vm.memory.readMany([{ address: 0x3_0000, into: new Uint8Array(8) }])).toThrow(code('VM_GONE'))
    expect(() => vm.memory.map(0x3_0000, 8, () => 0)).toThrow(code('VM_GONE'))
    await vm.close()
  })
})

describe('a memory map', () => {
  const frame = 4096

  test('whose last frame the guest has put far away is made all the same, of what is near', async () => {
    await using vm = await openGuest()
    guest.memory.far = 2 ** 36
    expect(vm.memory.regions().ranges).toEqual([{ start: 0, length: 64 * frame, kind: 'ram' }])
  })

  test('with many holes takes few calls', async () => {
    await using vm = await openGuest()
    for (let gfn = 1; gfn < 64; gfn += 2) guest.memory.missing.add(gfn)
    const before = guest.memory.maps
    expect(vm.memory.regions().ranges).toHaveLength(32)
    expect(guest.memory.maps - before).toBe(1)
  })

  test('has the pages that Xen shares with the guest, beside a hole and in it', async () => {
    await using vm = await openGuest()
    for (const gfn of [10, 20, 21]) guest.memory.shared.add(gfn)
    expect(vm.memory.regions().ranges).toEqual([{ start: 0, length: 64 * frame, kind: 'ram' }])
  })
})

describe('the ring', () => {
  test('indices that make no sense end the intercept with PROTOCOL, and no vCPU is left standing', async () => {
    const vm = await openGuest()
    const loop = (async () => {
      for await (const _ of vm.intercept({ kind: 'cr', register: 'cr3' })) throw new Error('an event')
    })()
    await settled()
    for (const vcpu of guest.vcpus) vcpu.isWaiting = true
    guest.lie(0x8000_0000)
    guest.channel.raise()
    await expect(loop).rejects.toEqual(code('PROTOCOL'))
    expect([guest.runs(0), guest.runs(1)]).toEqual([true, true])
    await vm.close()
    expect(guest.isMonitored).toBe(false)
  })

  test('a request of another version: PROTOCOL, and its vCPU goes on', async () => {
    const vm = await openGuest()
    const loop = (async () => {
      for await (const _ of vm.intercept({ kind: 'cr', register: 'cr3' })) throw new Error('an event')
    })()
    await settled()
    guest.request(1, REASON.controlRegister, (slot) => slot.setUint32(SLOT.version, 6, true))
    await expect(loop).rejects.toEqual(code('PROTOCOL'))
    expect([guest.runs(0), guest.runs(1)]).toEqual([true, true])
    await vm.close()
  })

  test('our breakpoints are out of the guest when the ring is of no use any more', async () => {
    const vm = await openGuest()
    guest.memory.write(LANDMARK, Uint8Array.of(0x90))
    const loop = (async () => {
      for await (const _ of vm.intercept({ kind: 'breakpoint', physicalAddress: LANDMARK })) throw new Error('an event')
    })()
    await settled()
    expect(guest.memory.read(LANDMARK, 1)).toEqual(Uint8Array.of(0xcc))
    guest.lie(99)
    guest.channel.raise()
    await expect(loop).rejects.toEqual(code('PROTOCOL'))
    expect(guest.memory.read(LANDMARK, 1)).toEqual(Uint8Array.of(0x90))
    await vm.close()
  })

  test('an unknown reason, and an event that nobody asked for, proceed', async () => {
    const vm = await openGuest()
    const seen: number[] = []
    const intercept = vm.intercept({ kind: 'cr', register: 'cr3' }, ({ vcpu }) => void seen.push(vcpu))
    await settled()
    guest.request(0, 99)
    guest.request(1, REASON.msr)
    await settled()
    expect([guest.runs(0), guest.runs(1), seen]).toEqual([true, true, []])
    guest.request(1, REASON.controlRegister, cr3Write)
    await settled()
    expect([guest.runs(1), seen]).toEqual([true, [1]])
    intercept.close()
    await vm.close()
  })

  test('a vCPU that the domain does not have: PROTOCOL, and those that it has go on', async () => {
    const vm = await openGuest()
    const loop = (async () => {
      for await (const _ of vm.intercept({ kind: 'cr', register: 'cr3' })) throw new Error('an event')
    })()
    await settled()
    guest.request(4_000_000_000, REASON.controlRegister, cr3Write)
    guest.request(1, REASON.controlRegister, cr3Write)
    await expect(loop).rejects.toThrow(/vCPU 4000000000/)
    expect([guest.runs(0), guest.runs(1)]).toEqual([true, true])
    await vm.close()
  })

  test('after an end with PROTOCOL, a new intercept works', async () => {
    const vm = await openGuest()
    const loop = (async () => {
      for await (const _ of vm.intercept({ kind: 'cr', register: 'cr3' })) throw new Error('an event')
    })()
    await settled()
    guest.lie(99)
    guest.channel.raise()
    await expect(loop).rejects.toEqual(code('PROTOCOL'))
    const seen: number[] = []
    const intercept = vm.intercept({ kind: 'cr', register: 'cr3' }, ({ vcpu }) => void seen.push(vcpu))
    await settled()
    expect([...guest.armed]).toEqual(['cr'])
    guest.request(1, REASON.controlRegister, cr3Write)
    await settled()
    expect([guest.runs(1), seen]).toEqual([true, [1]])
    intercept.close()
    await vm.close()
    expect([guest.pauses, guest.isMonitored]).toEqual([0, false])
  })

  test('an asynchronous event is answered at once, and stops nobody', async () => {
    const vm = await openGuest()
    const seen: string[] = []
    const intercept = vm.intercept({ kind: 'cr', register: 'cr3' }, ({ stops }) => void seen.push(stops))
    await settled()
    for (let count = 0; count < 20; count++) {
      guest.request(0, REASON.controlRegister, (slot) => {
        cr3Write(slot)
        slot.setUint32(SLOT.flags, 0, true)
      })
      await setTimeout(2)
    }
    await settled()
    expect([seen.length, new Set(seen)]).toEqual([20, new Set(['none'])])
    expect(guest.responses.every(({ flags }) => (flags & FLAG.vcpuPaused) === 0)).toBe(true)
    expect(guest.responses).toHaveLength(20)
    intercept.close()
    await vm.close()
  })
})

describe('arming', () => {
  test('what Xen refuses: the reason, nothing armed, and the monitor is let go', async () => {
    const vm = await openGuest()
    peer.failing.set('xc_monitor_write_ctrlreg', ERRNO.EPERM)
    expect(() => vm.intercept({ kind: 'cr', register: 'cr3' }, () => {})).toThrow(code('DENIED'))
    expect([guest.armed.size, guest.isMonitored, guest.pauses]).toEqual([0, false, 0])
    peer.failing.clear()
    const intercept = vm.intercept({ kind: 'cr', register: 'cr3' }, () => {})
    expect([...guest.armed]).toEqual(['cr'])
    intercept.close()
    await vm.close()
  })

  test('without room for the note of who monitors it, the domain is not monitored', async () => {
    const vm = await openGuest()
    PeerNote.isFull = true
    expect(() => vm.intercept({ kind: 'cr', register: 'cr3' }, () => {})).toThrow('ENOSPC')
    expect([guest.armed.size, guest.isMonitored, guest.pauses]).toEqual([0, false, 0])
    await vm.close()
  })

  test('what Xen refuses beside what is armed: that stays', async () => {
    const vm = await openGuest()
    const seen: number[] = []
    const intercept = vm.intercept({ kind: 'cr', register: 'cr3' }, ({ vcpu }) => void seen.push(vcpu))
    peer.failing.set('xc_monitor_software_breakpoint', ERRNO.EOPNOTSUPP)
    expect(() => vm.intercept({ kind: 'int3' }, () => {})).toThrow(code('UNSUPPORTED'))
    peer.failing.clear()
    guest.request(0, REASON.controlRegister, cr3Write)
    await settled()
    expect([[...guest.armed], seen, guest.runs(0)]).toEqual([['cr'], [0], true])
    intercept.close()
    await vm.close()
  })

  test('a breakpoint where there is no memory: BAD_ARGUMENT or BAD_ADDRESS, and nothing armed', async () => {
    const vm = await openGuest()
    guest.memory.missing.add(3)
    try {
      vm.intercept({ kind: 'breakpoint', physicalAddress: LANDMARK }, () => {})
      throw new Error('it was taken')
    } catch (error) {
      expect(['BAD_ARGUMENT', 'BAD_ADDRESS']).toContain((error as MicrovmiError).code)
    }
    expect([guest.armed.size, guest.isMonitored]).toEqual([0, false])
    await vm.close()
  })

  test('a breakpoint is hidden from reads, and its byte is the original again at the end', async () => {
    const vm = await openGuest()
    guest.memory.write(LANDMARK, Uint8Array.of(0x55))
    const intercept = vm.intercept({ kind: 'breakpoint', physicalAddress: LANDMARK }, () => {})
    expect(guest.memory.read(LANDMARK, 1)).toEqual(Uint8Array.of(0xcc))
    const into = new Uint8Array(1)
    vm.memory.read(LANDMARK, into)
    expect(into).toEqual(Uint8Array.of(0x55))
    guest.request(0, REASON.breakpoint, breakpoint(LANDMARK))
    await settled()
    expect(guest.runs(0)).toBe(true)
    expect((guest.responses.at(-1)?.flags ?? 0) & FLAG.emulate).toBe(FLAG.emulate)
    expect(guest.injected).toEqual([])
    intercept.close()
    expect(guest.memory.read(LANDMARK, 1)).toEqual(Uint8Array.of(0x55))
    await vm.close()
  })
})

describe('what a guest must never pay for', () => {
  test('an int3 whose reinjection Xen refuses: the vCPU goes on', async () => {
    const vm = await openGuest()
    guest.memory.write(LANDMARK, Uint8Array.of(0xcc))
    const intercept = vm.intercept({ kind: 'int3' }, () => {})
    await settled()
    peer.failing.set('xendevicemodel_inject_event', ERRNO.EBUSY)
    guest.request(0, REASON.breakpoint, breakpoint(LANDMARK))
    await settled()
    expect(guest.runs(0)).toBe(true)
    peer.failing.clear()
    guest.request(0, REASON.breakpoint, breakpoint(LANDMARK))
    await settled()
    expect([guest.runs(0), guest.injected]).toEqual([true, [{ vcpu: 0, vector: 3 }]])
    intercept.close()
    await vm.close()
  })

  test('a debug exception that comes while another waits to be delivered: the vCPU goes on, and events still come', async () => {
    const vm = await open(xen, { vm: 'debian', require: ['events.debug'] })
    const seen: number[] = []
    const intercept = vm.intercept({ kind: 'debug' }, ({ vcpu }) => void seen.push(vcpu))
    peer.failing.set('xendevicemodel_inject_event', ERRNO.EBUSY)
    guest.request(0, REASON.debugException)
    await settled()
    peer.failing.clear()
    guest.request(1, REASON.debugException)
    await settled()
    expect([guest.runs(0), guest.runs(1), seen, guest.injected]).toEqual([true, true, [0, 1], [{ vcpu: 1, vector: 1 }]])
    intercept.close()
    await vm.close()
  })

  test('what it writes over a breakpoint of ours is its own, and stays', async () => {
    const vm = await openGuest()
    guest.memory.write(LANDMARK, Uint8Array.of(0x55))
    const intercept = vm.intercept({ kind: 'breakpoint', physicalAddress: LANDMARK }, () => {})
    expect(guest.memory.read(LANDMARK, 1)).toEqual(Uint8Array.of(0xcc))
    guest.memory.write(LANDMARK, Uint8Array.of(0x77))
    expect(vm.memory.readUint8(LANDMARK)).toBe(0x77)
    intercept.close()
    expect(guest.memory.read(LANDMARK, 1)).toEqual(Uint8Array.of(0x77))
    await vm.close()
  })

  test('a page with a breakpoint that it gives back: the others come out', async () => {
    const vm = await openGuest()
    const other = LANDMARK + 4096
    guest.memory.missing.add(5)
    guest.memory.write(other, Uint8Array.of(0x55))
    const requests = [LANDMARK, other].map((physicalAddress) => ({ kind: 'breakpoint', physicalAddress }) as const)
    const intercept = vm.intercept(requests, () => {})
    guest.memory.missing.add(3)
    // What is kept mapped around it is mapped anew.
    expect(() => vm.memory.readUint8(0x5000)).toThrow(code('BAD_ADDRESS'))
    intercept.close()
    await intercept.ended
    expect(guest.memory.read(other, 1)).toEqual(Uint8Array.of(0x55))
    expect([guest.isMonitored, guest.pauses]).toEqual([false, 0])
    await vm.close()
  })

  test('a predecessor that was killed: its breakpoints are out, its vCPUs run again, and events come', async () => {
    guest.enable()
    for (const vcpu of guest.vcpus) vcpu.isWaiting = true
    guest.memory.write(LANDMARK, Uint8Array.of(0xcc, 0x33))
    PeerNote.left = [
      { address: LANDMARK, original: 0x90 },
      { address: LANDMARK + 1, original: 0x44 },
    ]
    const vm = await openGuest()
    // What is no breakpoint any more is the guest's own.
    expect(guest.memory.read(LANDMARK, 2)).toEqual(Uint8Array.of(0x90, 0x33))
    expect(vm.info.warnings).toHaveLength(1)
    expect(guest.pauses).toBe(0)
    const seen: number[] = []
    const intercept = vm.intercept({ kind: 'cr', register: 'cr3' }, ({ vcpu }) => void seen.push(vcpu))
    await settled()
    expect([guest.runs(0), guest.runs(1)]).toEqual([true, true])
    guest.request(1, REASON.controlRegister, cr3Write)
    await settled()
    expect([guest.runs(1), seen]).toEqual([true, [1]])
    intercept.close()
    await vm.close()
    expect([guest.isMonitored, guest.pauses, guest.armed.size]).toEqual([false, 0, 0])
  })

  test('a monitor that somebody else uses: BUSY, and it is left to them', async () => {
    guest.enable()
    guest.armed.add('theirs')
    const vm = await openGuest()
    expect(() => vm.intercept({ kind: 'cr', register: 'cr3' }, () => {})).toThrow(code('BUSY'))
    await vm.close()
    expect([guest.isMonitored, [...guest.armed]]).toEqual([true, ['theirs']])
  })

  test('a request that comes while the intercept ends is answered', async () => {
    const vm = await openGuest()
    const intercept = vm.intercept({ kind: 'cr', register: 'cr3' }, () => {})
    await settled()
    guest.request(0, REASON.controlRegister, cr3Write)
    guest.request(1, REASON.controlRegister, cr3Write)
    intercept.close()
    expect([guest.runs(0), guest.runs(1), guest.armed.size]).toEqual([true, true, 0])
    await vm.close()
  })

  test('released with events held: answered, disarmed, resumed, and a late answer is CLOSED or nothing', async () => {
    const vm = await openGuest()
    const held: { reply(): void }[] = []
    vm.intercept({ kind: 'cr', register: 'cr3' }, (event) => {
      event.hold()
      held.push(event)
    })
    await settled()
    guest.request(0, REASON.controlRegister, cr3Write)
    await settled()
    expect([held.length, guest.runs(0)]).toEqual([1, false])
    vm.pause()
    vm.release()
    expect([guest.runs(0), guest.pauses, guest.armed.size]).toEqual([true, 0, 0])
    const answers = guest.responses.length
    try {
      held[0]?.reply()
    } catch (error) {
      expect(error).toEqual(code('CLOSED'))
    }
    expect(guest.responses).toHaveLength(answers)
    await vm.close()
    expect(guest.isMonitored).toBe(false)
  })

  test('a domain that is destroyed while we listen: VM_GONE', async () => {
    const vm = await openGuest()
    const loop = (async () => {
      for await (const _ of vm.intercept({ kind: 'cr', register: 'cr3' })) throw new Error('an event')
    })()
    await settled()
    guest.isDestroyed = true
    peer.released.raise()
    await expect(loop).rejects.toEqual(code('VM_GONE'))
    expect(() => vm.readRegisters(0)).toThrow(code('VM_GONE'))
    await vm.close()
  })
})
