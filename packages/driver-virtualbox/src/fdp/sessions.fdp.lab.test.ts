import { closeSync, openSync, writeSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { open } from '@microvmi/core'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ClientProcess } from './client-process.testing.ts'
import { fdp } from './driver.ts'
import { CHANNEL } from './layout.ts'
import { LockFile, lockPath, PHASE, type Phase } from './lock-file.ts'
import { FdpServer, GUEST, hindrance, patternAt, titled } from './server.testing.ts'

let server: FdpServer
beforeEach(async () => {
  if (!hindrance) server = await FdpServer.start(`microvmi sessions ${process.pid}`, { vcpus: 2, memoryMiB: 32 })
})
afterEach(() => server?.[Symbol.asyncDispose]())

const code = (expected: string) => expect.objectContaining({ code: expected })
const page = () => new Uint8Array(4096)

describe.skipIf(hindrance)(titled('several clients'), () => {
  test('of several processes at once each get their own replies', { timeout: 60_000 }, async () => {
    const all = await Promise.all([
      ClientProcess.start(server.name, 'hammer'),
      ClientProcess.start(server.name, 'hammer'),
      ClientProcess.start(server.name, 'hammer'),
    ])
    await Promise.all(all.map((client) => client.line('done')))
  })

  test('one that was killed in the middle of an exchange does not lock the others out', {
    timeout: 30_000,
  }, async () => {
    await using vm = await open(fdp, { vm: server.name, timeout: 3000 })
    await using client = await ClientProcess.start(server.name, 'read when asked')
    await server.ask('stall 1')
    client.child.kill('SIGUSR1')
    await setTimeout(300)
    await client.kill()
    await server.ask('stall 0')
    expect(vm.readMsr(0, 0x277)).toBe(GUEST.pat)
    const bytes = page()
    vm.memory.read(GUEST.known, bytes)
    expect(bytes).toEqual(patternAt(GUEST.known, 4096))
  })

  test.each([
    ['locking', PHASE.locking, [CHANNEL.lock]],
    ['sending, the canal locked', PHASE.sending, [CHANNEL.lock, CHANNEL.toServer.lock]],
    ['sending', PHASE.sending, [CHANNEL.lock]],
    ['awaiting, the request never written', PHASE.awaiting, [CHANNEL.lock]],
    ['awaiting, the canal locked', PHASE.awaiting, [CHANNEL.lock, CHANNEL.toClient.lock]],
    ['done', PHASE.done, [CHANNEL.lock]],
  ] as const)('one that died while %s leaves locks that are broken', async (_, phase, locks) => {
    await using vm = await open(fdp, { vm: server.name, timeout: 3000 })
    leaveBehind(phase, locks)
    const bytes = page()
    vm.memory.read(GUEST.known, bytes)
    expect(bytes).toEqual(patternAt(GUEST.known, 4096))
  })

  test('one that was killed while it held the lock file does not lock the others out', async () => {
    await using vm = await open(fdp, { vm: server.name, timeout: 500 })
    await using client = await ClientProcess.start(server.name, 'seize')
    await setTimeout(50)
    expect(() => vm.readMsr(0, 0x277)).toThrow(code('TIMEOUT'))
    await client.kill()
    expect(vm.readMsr(0, 0x277)).toBe(GUEST.pat)
  })

  test('nor those that come to bear its number', async () => {
    await using client = await ClientProcess.start(server.name, 'seize')
    await client.kill()
    // Numbers are given from 1 on: one of these has that of the session that held the lock.
    await using first = await open(fdp, { vm: server.name, timeout: 1000 })
    await using second = await open(fdp, { vm: server.name, timeout: 1000 })
    for (const vm of [first, second]) expect(vm.readMsr(0, 0x277)).toBe(GUEST.pat)
  })

  test('whatever is in the lock file, the channel is found in order', async () => {
    await (await open(fdp, { vm: server.name })).close()
    const words = fc.array(fc.oneof(fc.integer(), fc.integer({ min: 0, max: 70 })), { minLength: 8, maxLength: 8 })
    await fc.assert(
      fc.asyncProperty(words, async (noted) => {
        const fd = openSync(lockPath('/dev/shm', server.name), 'r+')
        writeSync(fd, Int32Array.from(noted))
        closeSync(fd)
        await using vm = await open(fdp, { vm: server.name, timeout: 3000 })
        const bytes = page()
        vm.memory.read(GUEST.known, bytes)
        expect(bytes).toEqual(patternAt(GUEST.known, 4096))
        expect(vm.runState()).toBe('running')
      }),
      { numRuns: 25, examples: [[[1, 0, 0, 0, 0, 1, 0, 0]]] },
    )
  })

  test('a lock that is not ours is not broken: BUSY', async () => {
    await using vm = await open(fdp, { vm: server.name, timeout: 400 })
    leaveBehind(PHASE.idle, [CHANNEL.lock])
    expect(() => vm.readMsr(0, 0x277)).toThrow(code('BUSY'))
    poke(CHANNEL.lock, 0)
    expect(vm.readMsr(0, 0x277)).toBe(GUEST.pat)
  })

  test('there is one listener to events', async () => {
    await using first = await open(fdp, { vm: server.name })
    await using second = await open(fdp, { vm: server.name })
    const armed = first.intercept({ kind: 'cr', register: 'cr0' }, () => {})
    expect(() => second.intercept({ kind: 'cr', register: 'cr3' }, () => {})).toThrow(code('BUSY'))
    armed.close()
    second.intercept({ kind: 'cr', register: 'cr3' }, () => {}).close()
  })
})

describe.skipIf(hindrance)(titled('several sessions that stop the VM'), () => {
  test('it goes on when the last one has ended its pause', async () => {
    await using first = await open(fdp, { vm: server.name })
    await using second = await open(fdp, { vm: server.name })
    const earlier = first.pause()
    const later = second.pause()
    first.readRegisters(0)
    earlier.end()
    second.readRegisters(1)
    first.readRegisters(1)
    expect(first.runState()).toBe('paused')
    later.end()
    expect(first.runState()).toBe('running')
  })

  test('setRunState holds for all of them, and outlasts the session', async () => {
    await using first = await open(fdp, { vm: server.name })
    const second = await open(fdp, { vm: server.name })
    using pause = first.pause()
    second.setRunState('paused')
    await second.close()
    pause.end()
    expect(first.runState()).toBe('paused')
    await using third = await open(fdp, { vm: server.name })
    expect(third.info.warnings).toEqual([])
    expect(third.runState()).toBe('paused')
    using last = third.pause()
    first.setRunState('running')
    expect(first.runState()).toBe('paused')
    last.end()
    expect(first.runState()).toBe('running')
  })

  test('a VM that somebody else has stopped stays so', async () => {
    await using vm = await open(fdp, { vm: server.name })
    await server.ask('pause 1')
    vm.pause().end()
    vm.readRegisters(0)
    expect(vm.runState()).toBe('paused')
    vm.setRunState('running')
    expect(vm.runState()).toBe('running')
  })

  test('no event is lost while another stops it and lets it go on', { timeout: 60_000 }, async () => {
    await using vm = await open(fdp, { vm: server.name })
    const count = (vcpu: number) => Number(vm.memory.readUint64(GUEST.counters + 8 * vcpu))
    const seen = [0, 0]
    const intercept = vm.intercept({ kind: 'cr', register: 'cr3' }, ({ vcpu }) => {
      seen[vcpu] = (seen[vcpu] ?? 0) + 1
    })
    const before = [count(0), count(1)]
    await using other = await ClientProcess.start(server.name, 'stop and go')
    await other.line('done')
    const pause = vm.pause()
    const rounds = [count(0) - (before[0] ?? 0), count(1) - (before[1] ?? 0)]
    pause.end()
    await setTimeout(50)
    const events = [...seen]
    intercept.close()
    // Each round of the guest's program writes CR3 once; a vCPU may stand before or behind the write at either end.
    for (const vcpu of [0, 1]) {
      expect(rounds[vcpu]).toBeGreaterThan(20)
      expect(events[vcpu]).toBeGreaterThanOrEqual((rounds[vcpu] ?? 0) - 1)
    }
  })
})

describe.skipIf(hindrance)(titled('a killed app'), () => {
  test('leaves a breakpoint and a VM that stands at it: the next open puts both right, and says so', async () => {
    await using client = await ClientProcess.start(server.name, 'listen')
    await client.line('hit')
    await client.kill()
    await using vm = await open(fdp, { vm: server.name })
    expect(vm.info.warnings).toEqual([expect.stringContaining('1 breakpoint(s)')])
    expect(vm.runState()).toBe('running')
    const before = vm.memory.readUint64(GUEST.counters)
    await setTimeout(100)
    expect(vm.runState()).toBe('running')
    expect(vm.memory.readUint64(GUEST.counters)).toBeGreaterThan(before)
    await vm.close()
    await using next = await open(fdp, { vm: server.name })
    expect(next.info.warnings).toEqual([])
  })

  test('leaves a pause while another session listens: the next open ends it, and the events go on', async () => {
    await using vm = await open(fdp, { vm: server.name })
    let seen = 0
    const intercept = vm.intercept({ kind: 'cr', register: 'cr3' }, () => {
      seen += 1
    })
    await using client = await ClientProcess.start(server.name, 'pause')
    await setTimeout(100)
    await client.kill()
    await using next = await open(fdp, { vm: server.name })
    const before = seen
    const deadline = performance.now() + 5000
    while (seen < before + 10 && performance.now() < deadline) await setTimeout(10)
    expect(seen).toBeGreaterThanOrEqual(before + 10)
    intercept.close()
    expect(next.runState()).toBe('running')
  })

  test('leaves a pause: the next open ends it, and says so', async () => {
    await using client = await ClientProcess.start(server.name, 'pause')
    await setTimeout(100)
    await client.kill()
    await using vm = await open(fdp, { vm: server.name })
    expect(vm.info.warnings).toEqual([expect.stringContaining('a pause')])
    expect(vm.runState()).toBe('running')
  })
})

/** What a client of ours that has died would leave: its phase, and bytes of the channel. */
function leaveBehind(phase: Phase, locks: readonly number[]): void {
  const path = `/dev/shm/${server.name}`
  const fd = openSync(path, 'r')
  const lock = new LockFile('/dev/shm', server.name, fd)
  lock.phase = phase
  lock.awaited = 8
  lock.close()
  closeSync(fd)
  for (const offset of locks) poke(offset, 1)
}

function poke(offset: number, value: number): void {
  const fd = openSync(`/dev/shm/${server.name}`, 'r+')
  writeSync(fd, Uint8Array.of(value), 0, 1, offset)
  closeSync(fd)
}
