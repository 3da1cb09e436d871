import { chmodSync, existsSync, truncateSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { list, open } from '@microvmi/core'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { fdp } from './driver.ts'
import { FdpServer, GUEST, hindrance, patternAt, titled } from './server.testing.ts'

let server: FdpServer
beforeEach(async () => {
  if (!hindrance) server = await FdpServer.start(`microvmi misbehaviour ${process.pid}`, { vcpus: 2, memoryMiB: 32 })
})
afterEach(() => server?.[Symbol.asyncDispose]())

const code = (expected: string) => expect.objectContaining({ code: expected })
const page = () => new Uint8Array(4096)

describe.skipIf(hindrance)(titled('a server that misbehaves'), () => {
  test('is silent: TIMEOUT in time, and its late reply is no other request’s', async () => {
    await using vm = await open(fdp, { vm: server.name, timeout: 200 })
    await server.ask('stall 1')
    const start = performance.now()
    expect(() => vm.memory.read(GUEST.known, page())).toThrow(code('TIMEOUT'))
    expect(performance.now() - start).toBeLessThan(2000)
    expect(() => vm.readMsr(0, 0x277)).toThrow(code('TIMEOUT'))
    await server.ask('stall 0')
    await setTimeout(50)
    expect(vm.readMsr(0, 0x277)).toBe(GUEST.pat)
    const bytes = page()
    vm.memory.read(GUEST.known, bytes)
    expect(bytes).toEqual(patternAt(GUEST.known, 4096))
  })

  test('is silent for a while: events end with TIMEOUT, and close takes the breakpoints out', async () => {
    const vm = await open(fdp, { vm: server.name, timeout: 200 })
    const loop = (async () => {
      for await (const event of vm.intercept({ kind: 'cr', register: 'cr3' })) {
        if (event.vcpu === 0) await server.ask('stall 1')
      }
    })()
    await expect(loop).rejects.toThrow(code('TIMEOUT'))
    await server.ask('stall 0')
    await setTimeout(50)
    await vm.close()
    await using next = await open(fdp, { vm: server.name })
    expect(next.info.warnings).toEqual([])
    const count = () => next.memory.readUint64(GUEST.counters)
    const before = count()
    await setTimeout(100)
    expect(count()).toBeGreaterThan(before)
    expect(next.runState()).toBe('running')
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

  test('so are answers of no meaning', async () => {
    const vm = await open(fdp, { vm: server.name, timeout: 2000 })
    using pause = vm.pause()
    await server.ask('byte 7')
    expect(() => vm.memory.write(GUEST.scratch, page())).toThrow(code('PROTOCOL'))
    await server.ask('byte 255')
    expect(() => vm.writeMsr(0, 0x277, GUEST.pat)).toThrow(code('PROTOCOL'))
    await server.ask('size 4')
    expect(() => vm.writeMsr(0, 0x277, GUEST.pat)).toThrow(code('PROTOCOL'))
    await server.ask('status 0')
    expect(() => vm.readMsr(0, 0x277)).toThrow(code('PROTOCOL'))
    vm.memory.write(GUEST.scratch, page())
    pause.end()
    await vm.close()
    for (const count of [0, 65, 255]) {
      await server.ask(`byte ${count}`)
      await expect(open(fdp, { vm: server.name })).rejects.toThrow(code('PROTOCOL'))
    }
  })

  test('a read that it refuses though each of its pages is there is HYPERVISOR, and no invented data', async () => {
    await using vm = await open(fdp, { vm: server.name, timeout: 2000 })
    await server.ask('refuse 1')
    expect(() => vm.memory.read(GUEST.known, page())).toThrow(code('HYPERVISOR'))
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

describe.skipIf(hindrance)(titled('a killed server'), () => {
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

const isRoot = process.geteuid?.() === 0

describe.skipIf(hindrance || !isRoot)(isRoot ? titled('another user') : 'another user (skipped: needs root)', () => {
  const NOBODY = 65_534
  afterEach(() => process.seteuid?.(0))

  test('without a right to the channel is told so', async () => {
    chmodSync(`/dev/shm/${server.name}`, 0o600)
    process.seteuid?.(NOBODY)
    await expect(open(fdp, { vm: server.name })).rejects.toThrow(code('DENIED'))
  })

  test('with one reads, and has TIMEOUT when the server has gone: its process cannot be looked at', async () => {
    chmodSync(`/dev/shm/${server.name}`, 0o666)
    process.seteuid?.(NOBODY)
    await using vm = await open(fdp, { vm: server.name, timeout: 300 })
    const bytes = page()
    vm.memory.read(GUEST.known, bytes)
    expect(bytes).toEqual(patternAt(GUEST.known, 4096))
    process.seteuid?.(0)
    await using other = await open(fdp, { vm: server.name })
    expect(other.readMsr(0, 0x277)).toBe(GUEST.pat)
    await server.kill()
    process.seteuid?.(NOBODY)
    expect(() => vm.memory.read(GUEST.known, bytes)).toThrow(code('TIMEOUT'))
    await expect(open(fdp, { vm: server.name, timeout: 300 })).rejects.toThrow(code('TIMEOUT'))
  })
})
