import { setTimeout } from 'node:timers/promises'
import { open } from '@microvmi/core'
import { beforeEach, expect, test, vi } from 'vitest'
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
/** Xen's number of the view that stands for the guest's own: 0 is the open one. */
const OWN = 1
const [FRAME, OTHER] = [9, 10]
const [READ, WRITE] = [1, 2]

let peer: Peer
let guest: PeerDomain

beforeEach(() => {
  peer = new Peer()
  peer.isIntel = true
  guest = new PeerDomain(5, 'debian')
  peer.domains.push(guest)
  host.peer = peer
})

const opened = () =>
  open(xen, {
    vm: 'debian',
    require: [
      ...(['events.memory', 'events.singlestep', 'memory.access', 'views', 'reply.step', 'reply.view'] as const),
      ...(['reply.deny', 'reply.registers'] as const),
    ],
  })

/** Until it holds, or a second is over. */
async function until(holds: () => boolean): Promise<void> {
  for (const end = performance.now() + 1000; !holds(); await setTimeout(1)) {
    if (performance.now() > end) throw new Error(`not within a second: ${holds}`)
  }
}

/** A vCPU makes an access as often as it takes, as a processor does. */
async function made(vcpu: number, frame: number, access: number): Promise<void> {
  await until(() => guest.access(vcpu, frame, access))
}

/** As the guest was before us. */
function expectAsFound(): void {
  const { isMonitored, pauses, views } = guest
  expect({ isMonitored, pauses, hasViews: views.isOn }).toEqual({ isMonitored: false, pauses: 0, hasViews: false })
  expect(views.vcpus).toEqual(views.vcpus.map(() => ({ view: 0, isStepping: false, fast: undefined })))
  expect([...views.host.values()].filter((rights) => rights !== 7)).toEqual([])
}

test('an access is made in the open view, and the page is guarded again: without a second request', async () => {
  const vm = await opened()
  const seen: unknown[] = []
  const intercept = vm.intercept(
    { kind: 'memory', address: FRAME * PAGE, length: 1, access: 'w' },
    ({ vcpu, address, access, view, complete }) => {
      seen.push({ vcpu, address, access, view, complete })
    },
  )
  await made(0, FRAME, WRITE)
  expect(guest.views.vcpus[0]).toEqual({ view: OWN, isStepping: false, fast: undefined })
  await made(1, FRAME, READ | WRITE)
  expect(seen).toEqual([
    { vcpu: 0, address: FRAME * PAGE, access: 'w', view: 0, complete: true },
    { vcpu: 1, address: FRAME * PAGE, access: 'rw', view: 0, complete: true },
  ])
  intercept.close()
  await made(0, FRAME, WRITE)
  expect(seen).toHaveLength(2)
  await vm.close()
  expectAsFound()
})

test('what is in the ring when the last intercept ends is let through, and the monitor waits for the step', async () => {
  const vm = await opened()
  const intercept = vm.intercept({ kind: 'memory', address: FRAME * PAGE, length: 1, access: 'w' }, () => {})
  // No turn of the event loop: nobody has taken it out of the ring.
  expect(guest.access(0, FRAME, WRITE)).toBe(false)
  intercept.close()
  expect(guest.views.vcpus[0]).toMatchObject({ view: 0, isStepping: true, fast: OWN })
  expect(guest.armed).toContain('singlestep')
  await setTimeout(50)
  expect(guest.isMonitored).toBe(true)
  expect(guest.access(0, FRAME, WRITE)).toBe(true)
  expect(guest.views.vcpus[0]).toEqual({ view: OWN, isStepping: false, fast: undefined })
  await until(() => !guest.isMonitored)
  await vm.close()
  expectAsFound()
})

test('released while a vCPU has a step before it, the guest is as it was', async () => {
  const vm = await opened()
  vm.intercept({ kind: 'memory', address: FRAME * PAGE, length: 1, access: 'w' }, () => {})
  guest.access(1, FRAME, WRITE)
  await until(() => guest.views.vcpus[1]?.fast !== undefined)
  vm.release()
  expectAsFound()
  expect(guest.access(1, FRAME, WRITE)).toBe(true)
})

test('a step that was asked for is heard of once, and only its vCPU steps', async () => {
  const vm = await opened()
  const steps: number[] = []
  const heard = vm.intercept({ kind: 'singlestep', onlyAsked: true }, ({ vcpu }) => {
    steps.push(vcpu)
  })
  const intercept = vm.intercept({ kind: 'memory', address: FRAME * PAGE, length: 1, access: 'w' }, () => ({
    step: true,
  }))
  await made(1, FRAME, WRITE)
  await until(() => steps.length === 1)
  await made(0, OTHER, WRITE)
  await made(1, OTHER, WRITE)
  expect(steps).toEqual([1])
  expect(guest.views.vcpus).toEqual([
    { view: OWN, isStepping: false, fast: undefined },
    { view: OWN, isStepping: false, fast: undefined },
  ])
  intercept.close()
  heard.close()
  await vm.close()
  expectAsFound()
})

test('every step of one vCPU, also while it steps over an access of ours', async () => {
  const vm = await opened()
  let [steps, accesses] = [0, 0]
  const guard = vm.intercept({ kind: 'memory', address: FRAME * PAGE, length: 1, access: 'w' }, () => {
    accesses += 1
  })
  guest.access(1, FRAME, WRITE)
  await until(() => guest.views.vcpus[1]?.fast !== undefined)
  // It has a step before it that would be made without a request.
  const all = vm.intercept({ kind: 'singlestep', vcpu: 1 }, () => {
    steps += 1
  })
  expect(guest.views.vcpus[1]).toMatchObject({ isStepping: true, fast: undefined })
  await made(1, FRAME, WRITE)
  await until(() => steps === 1)
  expect(guest.views.vcpus[1]?.view).toBe(OWN)
  for (let round = 2; round < 5; round++) {
    await made(1, FRAME, WRITE)
    await until(() => steps === round)
  }
  expect(accesses).toBe(4)
  expect(guest.views.vcpus[0]?.isStepping).toBe(false)
  all.close()
  expect(guest.views.vcpus[1]?.isStepping).toBe(false)
  guard.close()
  await vm.close()
  expectAsFound()
})

test('a step that nobody has heard of when its intercept ends is the last', async () => {
  const vm = await opened()
  const all = vm.intercept({ kind: 'singlestep' }, () => {})
  expect(guest.views.vcpus.map(({ isStepping }) => isStepping)).toEqual([true, true])
  // Its request stays in the ring: no turn of the event loop.
  expect(guest.access(0, OTHER, WRITE)).toBe(true)
  all.close()
  expect(guest.runs(0)).toBe(true)
  expect(guest.views.vcpus.map(({ isStepping }) => isStepping)).toEqual([false, false])
  await vm.close()
  expectAsFound()
})

test('vCPUs that are put in a view stay there, whatever step is before them', async () => {
  const vm = await opened()
  const view = vm.views.create()
  vm.memory.setAccess(FRAME * PAGE, PAGE, 'r', view)
  vm.views.switch(view)
  guest.access(0, FRAME, WRITE)
  await until(() => guest.views.vcpus[0]?.fast === view)
  vm.views.switch(0)
  expect(guest.views.vcpus).toEqual([
    { view: OWN, isStepping: false, fast: undefined },
    { view: OWN, isStepping: false, fast: undefined },
  ])
  await made(0, FRAME, WRITE)
  expect(guest.views.vcpus[0]?.view).toBe(OWN)
  vm.views.destroy(view)
  await vm.close()
  expectAsFound()
})

test('a view that is destroyed while a vCPU would go back to it lets it go', async () => {
  const vm = await opened()
  const view = vm.views.create()
  vm.memory.setAccess(FRAME * PAGE, PAGE, 'r', view)
  vm.views.switch(view)
  guest.access(0, FRAME, WRITE)
  guest.access(1, OTHER, WRITE)
  await until(() => guest.views.vcpus[0]?.fast === view)
  vm.views.destroy(view)
  expect(guest.views.vcpus.map((vcpu) => vcpu.view)).toEqual([OWN, OWN])
  expect(guest.views.views.has(view)).toBe(false)
  await vm.close()
  expectAsFound()
})

test('a reply puts one vCPU in a view', async () => {
  const vm = await opened()
  const view = vm.views.create()
  const intercept = vm.intercept({ kind: 'memory', address: FRAME * PAGE, length: 1, access: 'w', view: 0 }, () => ({
    view,
  }))
  await made(1, FRAME, WRITE)
  expect(guest.views.vcpus.map((vcpu) => vcpu.view)).toEqual([OWN, view])
  expect(() => vm.views.switch(view, 0)).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }))
  intercept.close()
  await vm.close()
  expectAsFound()
})

test('what is refused is refused before anything is touched', async () => {
  const vm = await opened()
  const bad = (code: string) => expect.objectContaining({ code })
  expect(() => vm.memory.setAccess(FRAME * PAGE, PAGE, 'w')).toThrow(bad('UNSUPPORTED'))
  expect(() => vm.memory.setAccess(FRAME * PAGE, PAGE, 'r', 7)).toThrow(bad('BAD_ARGUMENT'))
  expect(() => vm.memory.setAccess(63 * PAGE, 2 * PAGE, 'r')).toThrow(bad('BAD_ADDRESS'))
  expect(() => vm.views.switch(7)).toThrow(bad('BAD_ARGUMENT'))
  expect(() => vm.views.destroy(0)).toThrow(bad('BAD_ARGUMENT'))
  expectAsFound()
  const views: number[] = []
  expect(() => {
    for (;;) views.push(vm.views.create())
  }).toThrow(bad('BUSY'))
  expect(views).toHaveLength(8)
  await vm.close()
  expectAsFound()
})

test('views that somebody else has made are left alone', async () => {
  guest.views.setState(true)
  const vm = await opened()
  expect(() => vm.views.create()).toThrow(expect.objectContaining({ code: 'BUSY' }))
  await vm.close()
  expect(guest.views.isOn).toBe(true)
})

test('a ring that cannot be trusted leaves nothing of ours in the guest', async () => {
  const vm = await opened()
  const intercept = vm.intercept({ kind: 'memory', address: FRAME * PAGE, length: 1, access: 'w' }, () => {})
  guest.access(0, FRAME, WRITE)
  await until(() => guest.views.vcpus[0]?.fast !== undefined)
  guest.lie(1000)
  guest.channel.raise()
  await expect(intercept.ended).rejects.toEqual(expect.objectContaining({ code: 'PROTOCOL' }))
  expectAsFound()
  await vm.close()
})

test('released while the ring cannot be trusted, nothing of ours is left either', async () => {
  const vm = await opened()
  vm.intercept({ kind: 'memory', address: FRAME * PAGE, length: 1, access: 'w' }, () => {}).ended.catch(() => {})
  vm.memory.setAccess(OTHER * PAGE, PAGE, 'r')
  guest.access(0, FRAME, WRITE)
  await until(() => guest.views.vcpus[0]?.fast !== undefined)
  guest.lie(1000)
  expect(() => vm.release()).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
  await setTimeout(10)
  expectAsFound()
})

test('the same where pages have rights and nobody listens', async () => {
  const vm = await opened()
  vm.memory.setAccess(OTHER * PAGE, PAGE, 'r')
  guest.lie(1000)
  expect(() => vm.release()).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
  expectAsFound()
})

test('a view that is asked for while the ring cannot be trusted is refused, and all ends', async () => {
  const vm = await opened()
  const view = vm.views.create()
  const { ended } = vm.intercept({ kind: 'memory', address: FRAME * PAGE, length: 1, access: 'w' }, () => {})
  guest.lie(1000)
  expect(() => vm.views.switch(view)).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
  await expect(ended).rejects.toEqual(expect.objectContaining({ code: 'PROTOCOL' }))
  expectAsFound()
  await vm.close()
})
