import { type InterceptRequest, open } from '@microvmi/core'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { fdp } from './driver.ts'
import { NOT_SERVED, REGISTER } from './layout.ts'
import { FdpServer, GUEST, hindrance, patternAt, titled } from './server.testing.ts'

let server: FdpServer
beforeEach(async () => {
  if (!hindrance) server = await FdpServer.start(`microvmi limits ${process.pid}`, { vcpus: 2, memoryMiB: 32 })
})
afterEach(() => server?.[Symbol.asyncDispose]())

const code = (expected: string) => expect.objectContaining({ code: expected })
const page = () => new Uint8Array(4096)

describe.skipIf(hindrance)(titled('what the protocol cannot do at once, or not at all'), () => {
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

  test('breakpoints on the instructions that other breakpoints are about: each has its events', async () => {
    await using vm = await open(fdp, { vm: server.name })
    const at = (offset: number) => ({ kind: 'breakpoint', address: GUEST.codeVirtual + BigInt(offset) }) as const
    const requests: InterceptRequest<'breakpoint' | 'msr' | 'cr' | 'memory'>[] = [
      at(GUEST.wrmsr),
      { kind: 'msr', msr: GUEST.lstar },
      at(GUEST.movCr3),
      { kind: 'cr', register: 'cr3' },
      // Where the vCPU stands behind its write.
      at(GUEST.increment),
      { kind: 'memory', address: GUEST.code, length: 64, access: 'x' },
    ]
    const seen = new Map<string, number>()
    let total = 0
    for await (const event of vm.intercept(...requests)) {
      const what = event.kind === 'breakpoint' ? `at ${event.address - GUEST.codeVirtual}` : event.kind
      seen.set(what, (seen.get(what) ?? 0) + 1)
      if (event.kind === 'cr') expect([event.old, event.new].sort()).toEqual([...GUEST.tables])
      total += 1
      if (total === 120) break
    }
    const [one, ...others] = ['at 1', 'msr', 'at 3', 'cr', 'at 6'].map((what) => seen.get(what) ?? 0)
    expect(one).toBeGreaterThan(5)
    // Each once in a round of the program: of two vCPUs, either may be somewhere in it.
    for (const other of others) expect(Math.abs(other - (one ?? 0))).toBeLessThanOrEqual(2)
  })

  test('a page that is written right behind a write to CR3: both have their events', async () => {
    await using vm = await open(fdp, { vm: server.name })
    const kinds = new Map<string, number>()
    let total = 0
    for await (const { kind } of vm.intercept(
      { kind: 'cr', register: 'cr3', onChange: false },
      { kind: 'memory', address: GUEST.counters, length: 8, access: 'w' },
    )) {
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
      total += 1
      if (total === 60) break
    }
    expect(Math.abs((kinds.get('cr') ?? 0) - (kinds.get('memory') ?? 0))).toBeLessThanOrEqual(3)
  })

  test('MSRs: a value is told from the 0 that the server says where there is none', async () => {
    await using vm = await open(fdp, { vm: server.name })
    expect(vm.readMsr(0, 0xc000_0103)).toBeTypeOf('bigint')
    expect(() => vm.readMsr(0, 0x1234)).toThrow(code('UNSUPPORTED'))
    expect(() => vm.writeMsr(0, 0x1234, 1n)).toThrow(code('UNSUPPORTED'))
  })

  test('each vCPU has its own registers, though the shared page has those of vCPU 0', async () => {
    await using vm = await open(fdp, { vm: server.name })
    using _pause = vm.pause()
    expect(vm.readRegisters(0).rbx).toBe(0xffff_ffff_8040_0000n)
    expect(vm.readRegisters(1).rbx).toBe(0xffff_ffff_8040_0008n)
  })

  test('a register that is not served is undefined, and one that just looks so is not', async () => {
    await using vm = await open(fdp, { vm: server.name })
    using _pause = vm.pause()
    const { r15, dr7, gdt } = vm.readRegisters(0)
    expect(dr7).toBeTypeOf('bigint')
    expect(gdt).toBeDefined()
    vm.writeRegisters(0, { r15: NOT_SERVED })
    expect(vm.readRegisters(0).r15).toBe(NOT_SERVED)
    vm.writeRegisters(0, { r15 })
    for (const [number, name] of [
      [REGISTER.dr7, 'dr7'],
      [REGISTER.gdtBase, 'gdt'],
      [REGISTER.gdtLimit, 'gdt'],
      [REGISTER.ss, 'ss'],
    ] as const) {
      await server.ask(`unserved ${number}`)
      expect(vm.readRegisters(0)[name]).toBeUndefined()
    }
    await server.ask(`unserved ${REGISTER.cr4}`)
    expect(() => vm.readRegisters(0)).toThrow(code('PROTOCOL'))
    await server.ask('unserved -1')
    expect(vm.readRegisters(0).dr7).toBe(dr7)
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
