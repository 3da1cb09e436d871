import { setTimeout } from 'node:timers/promises'
import type { BackendEvent, EventSink, RegisterBackend, Registers } from '@microvmi/core/driver'
import { encodePacket } from '@microvmi/gdb-packets'
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import { ConsoleMemory } from './console-memory.ts'
import { breakpointsIn } from './console-text.ts'
import { GdbEvents } from './gdb-events.ts'
import { GdbStub } from './gdb-stub.ts'
import { Peers } from './peer-process.testing.ts'
import { outputOf, StubPackets } from './stub-packets.ts'

const code = (expected: string) => expect.objectContaining({ code: expected })
const peers = new Peers(new URL('./gdb-peer.testing.ts', import.meta.url))
const stubs: GdbStub[] = []
afterEach(async () => {
  for (const stub of stubs.splice(0)) stub.close()
  await peers.stop()
})
async function connected(manner: string, timeout = 3000): Promise<GdbStub> {
  const stub = new GdbStub('127.0.0.1', await peers.start(manner), timeout, 2)
  stubs.push(stub)
  return stub
}

describe('packets', () => {
  const bytes = (text: string) => Buffer.from(text, 'latin1')
  /** What goes through a packet as it is: none of the protocol's own characters, and no NUL at its end. */
  const data = fc.string({ unit: 'binary-ascii' }).filter((text) => !/[$#}*]|\0$/.test(text))

  test('are the same behind any cut, with a NUL or without', () => {
    fc.assert(
      fc.property(fc.array(data), fc.array(fc.nat(40)), fc.boolean(), (all, cuts, hasNul) => {
        const text = all.map((one) => `+${encodePacket(hasNul ? `${one}\0` : one)}`).join('')
        const reader = new StubPackets()
        const found: string[] = []
        for (let at = 0, cut = 0; at < text.length; cut++) {
          const end = at + (cuts[cut] ?? text.length)
          reader.push(bytes(text.slice(at, end)))
          for (let said = reader.next(); said; said = reader.next()) if ('data' in said) found.push(said.data)
          at = end
        }
        expect(found).toEqual(all)
      }),
    )
  })

  test('of any other sort are PROTOCOL', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (noise) => {
        const reader = new StubPackets()
        reader.push(noise)
        try {
          while (reader.next());
        } catch (error) {
          expect(error).toEqual(code('PROTOCOL'))
        }
      }),
    )
    expect(() => outputOf('Oxy')).toThrow(code('PROTOCOL'))
    expect(outputOf('OK')).toBeUndefined()
    expect(outputOf('O41420a')).toBe('AB\n')
  })
})

describe('a stub', () => {
  test.each(['well', 'chatty', 'nul'])('that is %s gives memory', { timeout: 20_000 }, async (manner) => {
    const memory = new ConsoleMemory(await connected(manner))
    const bytes = Uint8Array.from({ length: 50 }, (_, index) => index + 1)
    memory.write(4093, bytes)
    const back = new Uint8Array(50)
    expect(memory.read(4093, back)).toBe(50)
    expect(back).toEqual(bytes)
    expect(memory.read(2 ** 20 - 10, new Uint8Array(30))).toBe(10)
  })

  test('holds the VM and lets it go on, as often as one likes', { timeout: 20_000 }, async () => {
    const stub = await connected('well')
    for (let round = 0; round < 3; round++) {
      expect(stub.isHalted).toBe(false)
      stub.hold('pause')
      stub.hold('write')
      stub.letGo('write')
      expect(stub.isHalted).toBe(true)
      stub.step(1)
      stub.letGo('pause')
      stub.letGo('pause')
    }
    expect(stub.hasStopped()).toBe(false)
  })

  test('is rid of the breakpoints of who was killed', { timeout: 20_000 }, async () => {
    const port = await peers.start('leftover')
    for (const leftovers of [1, 0]) {
      const stub = new GdbStub('127.0.0.1', port, 3000, 2)
      expect(stub.leftovers).toBe(leftovers)
      stub.close()
    }
    fc.assert(fc.property(fc.string({ unit: 'binary-ascii' }), (text) => breakpointsIn(text).every((one) => one >= 0)))
    expect(breakpointsIn(' 0x0 e 1 x ffff\n 0x1f d 0 r 0\nbl: error: x\n')).toEqual([0, 31])
  })

  test('has four breakpoints', { timeout: 20_000 }, async () => {
    const stub = await connected('well')
    for (const address of [1n, 2n, 3n, 4n]) stub.setBreakpoint(address)
    expect(() => stub.setBreakpoint(5n)).toThrow(code('BUSY'))
    stub.clearBreakpoint(4n)
    stub.setBreakpoint(2n ** 64n - 1n)
    expect(() => stub.clearBreakpoint(4n)).toThrow(code('PROTOCOL'))
  })

  test.each([
    ['real-mode', 'PROTOCOL'],
    ['console', 'PROTOCOL'],
    ['endless', 'PROTOCOL'],
    ['broken', 'PROTOCOL'],
    ['mute', 'BUSY'],
  ])('that is %s is %s', { timeout: 20_000 }, async (manner, expected) => {
    await expect(connected(manner, 2000)).rejects.toEqual(code(expected))
  })

  test('that stalls is TIMEOUT, that refuses PROTOCOL, that has gone VM_GONE', { timeout: 20_000 }, async () => {
    const stalling = await connected('stalling', 1500)
    expect(() => stalling.ask(['r'])).toThrow(code('TIMEOUT'))
    const refusing = await connected('refusing')
    expect(() => refusing.ask(['r'])).toThrow(code('PROTOCOL'))
    const gone = await connected('well')
    await peers.stop()
    expect(() => gone.ask(['r'])).toThrow(code('VM_GONE'))
  })
})

describe('breakpoints', () => {
  const ADDRESS = 0xffff_ffff_8000_7d48n
  /** vCPU 1 stands at the breakpoint. */
  const registers: RegisterBackend = {
    read: (vcpu) => ({ architecture: 'x86-64', rip: vcpu === 1 ? ADDRESS : 0n }) as Registers,
  }
  async function armed(manner = 'well') {
    const stub = await connected(manner)
    const events = new GdbEvents(stub, registers, 2)
    const delivered: BackendEvent[] = []
    const failures: Error[] = []
    const sink: EventSink = { deliver: (event) => delivered.push(event), fail: (error) => failures.push(error) }
    events.listen(sink)
    events.arm({ kind: 'breakpoint', address: ADDRESS }, 7)
    const until = async (count: number) => {
      for (let tries = 0; tries < 200 && delivered.length < count && failures.length === 0; tries++)
        await setTimeout(20)
      return delivered[count - 1]
    }
    return { stub, events, delivered, failures, until }
  }

  test('are events of the vCPU that stands there, one at a time', { timeout: 20_000 }, async () => {
    const { stub, events, delivered, until } = await armed()
    for (let count = 1; count <= 3; count++) {
      const event = await until(count)
      expect(event).toMatchObject({
        kind: 'breakpoint',
        vcpu: 1,
        armed: [7],
        stops: 'vm',
        fields: { address: ADDRESS },
      })
      expect(stub.isHalted).toBe(true)
      if (event) events.reply(event, {})
    }
    events.disarm(7)
    const before = delivered.length
    await setTimeout(300)
    expect(delivered.length).toBe(before)
    expect(stub.isHalted).toBe(false)
  })

  test('at one address are one breakpoint, which stays for the other', { timeout: 20_000 }, async () => {
    const { events, until } = await armed()
    events.arm({ kind: 'breakpoint', address: ADDRESS }, 8)
    expect((await until(1))?.armed).toEqual([7, 8])
    events.disarm(7)
    events.release()
    expect(() => events.disarm(8)).not.toThrow()
  })

  test('of other sorts are refused before anything is set', { timeout: 20_000 }, async () => {
    const { events } = await armed()
    for (const request of [
      { kind: 'singlestep' },
      { kind: 'singlestep', vcpu: 0 },
      { kind: 'breakpoint', physicalAddress: 0 },
      { kind: 'breakpoint', address: 1n, method: 'software' },
      { kind: 'breakpoint', address: 1n, addressSpace: 0n },
    ] as const) {
      expect(() => events.arm(request, 9)).toThrow(code('UNSUPPORTED'))
    }
    expect(() => events.arm({ kind: 'breakpoint', address: -1n }, 9)).toThrow(code('BAD_ARGUMENT'))
    expect(() => events.arm({ kind: 'singlestep', vcpu: 2, onlyAsked: true }, 9)).toThrow(code('BAD_ARGUMENT'))
  })

  test('are stepped from where a reply asks for it, and the VM goes on behind that', { timeout: 20_000 }, async () => {
    const { stub, events, until } = await armed()
    events.arm({ kind: 'singlestep', onlyAsked: true }, 8)
    for (let count = 1; count <= 3; count += 2) {
      const hit = await until(count)
      expect(hit?.kind).toBe('breakpoint')
      if (hit) events.reply(hit, { step: true })
      const step = await until(count + 1)
      expect(step).toMatchObject({ kind: 'singlestep', vcpu: 1, armed: [8], stops: 'vm', fields: { address: ADDRESS } })
      expect(stub.isHalted).toBe(true)
      if (step) events.reply(step, {})
    }
    events.disarm(7)
    events.disarm(8)
    await setTimeout(300)
    expect(stub.isHalted).toBe(false)
  })

  test('are stepped from when the VM is not paused any more', { timeout: 20_000 }, async () => {
    const { stub, events, delivered, until } = await armed()
    events.arm({ kind: 'singlestep', onlyAsked: true }, 8)
    const hit = await until(1)
    stub.hold('pause')
    if (hit) events.reply(hit, { step: true })
    await setTimeout(100)
    expect(delivered).toHaveLength(1)
    stub.letGo('pause')
    expect(await until(2)).toMatchObject({ kind: 'singlestep', vcpu: 1 })
    events.release()
    expect(stub.isHalted).toBe(false)
  })

  test('end with VM_GONE when the VM has gone', { timeout: 20_000 }, async () => {
    const { events, failures, until } = await armed()
    await until(1)
    await peers.stop()
    await setTimeout(100)
    expect(() => events.disarm(7)).toThrow(code('VM_GONE'))
    expect(failures.length).toBeLessThanOrEqual(1)
  })
})
