import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, truncateSync, writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { list, open } from '@microvmi/core'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { fdp } from './driver.ts'
import { CHANNEL } from './layout.ts'
import { LockFile, PHASE, type Phase } from './lock-file.ts'
import { FdpServer, GUEST, patternAt } from './server.testing.ts'

const CLIENT = fileURLToPath(new URL('./client.testing.ts', import.meta.url))
let server: FdpServer
let children: ChildProcess[] = []
beforeEach(async () => {
  server = await FdpServer.start(`microvmi channel ${process.pid}`, { vcpus: 2, memoryMiB: 32 })
})
afterEach(async () => {
  for (const child of children) child.kill('SIGKILL')
  children = []
  await server[Symbol.asyncDispose]()
})

const code = (expected: string) => expect.objectContaining({ code: expected })
const page = () => new Uint8Array(4096)

/** A client in another process, at work. */
async function client(what: string): Promise<{ child: ChildProcess; line(text: string): Promise<void> }> {
  const child = spawn(process.execPath, ['--import', 'tsx', CLIENT, server.name, what], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  children.push(child)
  const seen: string[] = []
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (text) => seen.push(text))
  const line = async (text: string) => {
    while (!seen.includes(text)) {
      if (child.exitCode !== null) throw new Error(`the client ended with ${child.exitCode}`)
      await Promise.race([once(lines, 'line'), once(child, 'exit')])
    }
  }
  await line('begun')
  return { child, line }
}

async function kill(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

describe('a server that misbehaves', () => {
  test('is silent: TIMEOUT in time, and its late reply is no other request’s', async () => {
    await using vm = await open(fdp, { vm: server.name, timeout: 200 })
    await server.ask('stall 1')
    const start = performance.now()
    expect(() => vm.memory.read(GUEST.known, page())).toThrow(code('TIMEOUT'))
    expect(performance.now() - start).toBeLessThan(2000)
    expect(() => vm.readMsr(0, 0x277)).toThrow(code('TIMEOUT'))
    await server.ask('stall 0')
    await setTimeout(50)
    expect(vm.readMsr(0, 0x277)).toBe(0x0007_0406_0007_0406n)
    const bytes = page()
    vm.memory.read(GUEST.known, bytes)
    expect(bytes).toEqual(patternAt(GUEST.known, 4096))
  })

  test('sizes that lie and a status of no meaning are PROTOCOL, and the next exchange is right', async () => {
    await using vm = await open(fdp, { vm: server.name, timeout: 2000 })
    const lies = fc.oneof(
      fc.record({ what: fc.constant('size'), value: fc.integer({ min: 0, max: 2 ** 31 - 1 }) }),
      fc.record({ what: fc.constant('status'), value: fc.integer({ min: 2, max: 255 }) }),
    )
    await fc.assert(
      fc.asyncProperty(lies, async ({ what, value }) => {
        await server.ask(`${what} ${value}`)
        const bytes = page()
        const isTrue = what === 'size' && value === 4096
        if (isTrue) vm.memory.read(GUEST.known, bytes)
        else expect(() => vm.memory.read(GUEST.known, bytes)).toThrow(code('PROTOCOL'))
        vm.memory.read(GUEST.known, bytes)
        expect(bytes).toEqual(patternAt(GUEST.known, 4096))
      }),
      { numRuns: 60, examples: [[{ what: 'size', value: 0 }], [{ what: 'size', value: 1 }]] },
    )
  })

  test('a channel of the wrong size is PROTOCOL, one that is not there VM_NOT_FOUND', async () => {
    await server.kill()
    truncateSync(`/dev/shm/${server.name}`, 4096)
    await expect(open(fdp, { vm: server.name })).rejects.toThrow(code('PROTOCOL'))
    for (const vm of ['nobody', '..', 'a/b', '../../etc/passwd', 'ä"\'$(x)']) {
      await expect(open(fdp, { vm })).rejects.toThrow(code('VM_NOT_FOUND'))
    }
  })
})

describe('a killed server', () => {
  test('is VM_GONE at once, from every method', async () => {
    await using vm = await open(fdp, { vm: server.name, timeout: 5000 })
    const loop = (async () => {
      for await (const _ of vm.intercept({ kind: 'cr', register: 'cr3' }));
    })()
    loop.catch(() => undefined)
    await setTimeout(20)
    await server.kill()
    await expect(loop).rejects.toThrow(code('VM_GONE'))
    const calls = [
      () => vm.memory.read(0, page()),
      () => vm.memory.write(GUEST.scratch, page()),
      () => vm.readRegisters(0),
      () => vm.writeRegisters(0, { rax: 1n }),
      () => vm.readMsr(0, 0x277),
      () => vm.pause(),
      () => vm.runState(),
    ]
    const start = performance.now()
    for (const call of calls) expect(call).toThrow(code('VM_GONE'))
    expect(performance.now() - start).toBeLessThan(1000)
  })

  test('leaves a channel behind that is told from a living one', async () => {
    await server.kill()
    expect(existsSync(`/dev/shm/${server.name}`)).toBe(true)
    await expect(open(fdp, { vm: server.name })).rejects.toThrow(code('VM_GONE'))
    const { vms } = await list({ driver: fdp })
    expect(vms.find(({ name }) => name === server.name)).toMatchObject({
      state: 'stopped',
      hindrance: expect.stringContaining('start it again'),
    })
  })

  test('and one started in its place is another VM', async () => {
    await using vm = await open(fdp, { vm: server.name })
    await server.kill()
    server = await FdpServer.start(server.name, { vcpus: 1 })
    await setTimeout(50)
    expect(() => vm.memory.read(0, page())).toThrow(code('VM_GONE'))
    await using next = await open(fdp, { vm: server.name })
    expect(next.vcpuCount).toBe(1)
  })
})

describe('several clients', () => {
  test('of several processes at once each get their own replies', { timeout: 60_000 }, async () => {
    const all = await Promise.all([client('hammer'), client('hammer'), client('hammer')])
    await Promise.all(all.map(({ line }) => line('done')))
  })

  test('one that was killed in the middle of an exchange does not lock the others out', async () => {
    await using vm = await open(fdp, { vm: server.name, timeout: 3000 })
    const { child } = await client('read when asked')
    await server.ask('stall 1')
    child.kill('SIGUSR1')
    await setTimeout(300)
    await kill(child)
    await server.ask('stall 0')
    expect(vm.readMsr(0, 0x277)).toBe(0x0007_0406_0007_0406n)
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

  test('a lock that is not ours is not broken: BUSY', async () => {
    await using vm = await open(fdp, { vm: server.name, timeout: 400 })
    leaveBehind(PHASE.idle, [CHANNEL.lock])
    expect(() => vm.readMsr(0, 0x277)).toThrow(code('BUSY'))
    poke(CHANNEL.lock, 0)
    expect(vm.readMsr(0, 0x277)).toBe(0x0007_0406_0007_0406n)
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

describe('a killed app', () => {
  test('leaves a breakpoint and a VM that stands at it: the next open puts both right, and says so', async () => {
    const { child, line } = await client('listen')
    await line('hit')
    await kill(child)
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

  test('leaves a pause: the next open ends it, and says so', async () => {
    const { child } = await client('pause')
    await setTimeout(100)
    await kill(child)
    await using vm = await open(fdp, { vm: server.name })
    expect(vm.info.warnings).toEqual([expect.stringContaining('a pause')])
    expect(vm.runState()).toBe('running')
  })
})

describe('what the protocol cannot do at once, or not at all', () => {
  test('reads of over 10 MiB and writes of over 1 MiB go in pieces', async () => {
    await using vm = await open(fdp, { vm: server.name })
    const long = new Uint8Array(12 * 2 ** 20 + 5)
    vm.memory.read(0x70_0000, long)
    expect(Buffer.compare(long, patternAt(0x70_0000, long.length))).toBe(0)
    const bytes = Uint8Array.from({ length: 3 * 2 ** 20 + 7 }, (_, index) => index % 241)
    vm.memory.write(0x80_0001, bytes)
    const back = new Uint8Array(bytes.length)
    vm.memory.read(0x80_0001, back)
    expect(Buffer.compare(back, bytes)).toBe(0)
  })

  test('a long write that goes beyond memory writes nothing', async () => {
    await using vm = await open(fdp, { vm: server.name })
    const [start, end] = [30 * 2 ** 20, 32 * 2 ** 20]
    const before = new Uint8Array(4096)
    vm.memory.read(start, before)
    expect(() => vm.memory.write(start, new Uint8Array(3 * 2 ** 20))).toThrow(
      expect.objectContaining({ code: 'BAD_ADDRESS', address: end }),
    )
    const after = new Uint8Array(4096)
    vm.memory.read(start, after)
    expect(after).toEqual(before)
  })

  test('each vCPU has its own registers, though the shared page has those of vCPU 0', async () => {
    await using vm = await open(fdp, { vm: server.name })
    using _pause = vm.pause()
    expect(vm.readRegisters(0).rbx).toBe(0xffff_ffff_8040_0000n)
    expect(vm.readRegisters(1).rbx).toBe(0xffff_ffff_8040_0008n)
  })

  test('registers of other vCPUs and CR2, which would crash or corrupt the VM, are refused', async () => {
    await using vm = await open(fdp, { vm: server.name })
    expect(() => vm.writeRegisters(1, { rax: 1n })).toThrow(code('UNSUPPORTED'))
    expect(() => vm.writeRegisters(0, { cr2: 1n })).toThrow(code('UNSUPPORTED'))
    vm.writeRegisters(1, {})
    expect(vm.runState()).toBe('running')
  })

  test('requests are laid out as the Windows build has them, too', async () => {
    await using packed = await FdpServer.start(`microvmi packed ${process.pid}`, { isPacked: true })
    await using vm = await open(fdp, { vm: packed.name, layout: 'packed' })
    using _pause = vm.pause()
    const bytes = page()
    vm.memory.write(GUEST.scratch + 1, patternAt(77, 4096))
    vm.memory.read(GUEST.scratch + 1, bytes)
    expect(bytes).toEqual(patternAt(77, 4096))
    vm.writeRegisters(0, { r15: 0x1234_5678_9abc_def0n })
    vm.writeMsr(0, 0xc000_0102, 5n)
    expect(vm.readRegisters(0)).toMatchObject({ r15: 0x1234_5678_9abc_def0n, kernelGsBase: 5n, cr4: 0x6f0n })
    _pause.end()
    for (const request of [
      { kind: 'cr', register: 'cr3' },
      { kind: 'msr', msr: GUEST.lstar },
      { kind: 'breakpoint', address: GUEST.codeVirtual, addressSpace: GUEST.tables[0] },
      { kind: 'memory', address: GUEST.counters, length: 8, access: 'w' },
    ] as const) {
      for await (const event of vm.intercept(request)) {
        expect(event.kind).toBe(request.kind)
        break
      }
    }
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
