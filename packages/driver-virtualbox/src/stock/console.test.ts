import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import { ConsoleMemory } from './console-memory.ts'
import { complaintIn, memoryLines, padded, storeCommand } from './console-text.ts'
import { DebugConsole } from './debug-console.ts'

/** Of any bytes. */
const anyText = fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes).toString('latin1'))
const code = (expected: string) => expect.objectContaining({ code: expected })
const PEER = fileURLToPath(new URL('./console-peer.testing.ts', import.meta.url))
const children: ChildProcess[] = []
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
})

/** A console in a process of its own, for ours waits with its thread blocked. Returns its port. */
async function peer(manner: string): Promise<number> {
  const child = spawn(process.execPath, ['--import', 'tsx', PEER, manner], { stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  const [port] = await once(createInterface({ input: child.stdout as NodeJS.ReadableStream }), 'line')
  return Number(port)
}

describe('the text', () => {
  test('of memory and of complaints is told from everything else', () => {
    const text = [
      'VBoxDbg> %%0000000000009000: 0000000000463d53 0000000000000001',
      'dbgf event/0: CPU 0 has halted! (raw)',
      'rax=0000000080001234 rbx=ffffffff80009000',
      'warning: The VM is already halted...',
      'VBoxDbg> error: VERR_PGM_PHYS_PAGE_RESERVED:  Reading memory at %%00000000000a0000.',
      "Syntax error: Unknown command 'bogus'!",
      'g: error: DBGFR3Resume: VWRN_DBGF_ALREADY_RUNNING',
      '%%000000000000a000: 12',
    ].join('\r\n')
    expect([...memoryLines(text)]).toEqual([
      { address: 0x9000, words: [0x463d53n, 1n] },
      { error: 'VERR_PGM_PHYS_PAGE_RESERVED:  Reading memory at %%00000000000a0000.', address: 0xa0000 },
      { error: "Unknown command 'bogus'!", address: undefined },
      { error: 'DBGFR3Resume: VWRN_DBGF_ALREADY_RUNNING', address: undefined },
    ])
    expect(complaintIn(text)).toContain('VERR_PGM_PHYS_PAGE_RESERVED')
    expect(complaintIn('VBoxDbg> rip=0x0\r\n')).toBeUndefined()
  })

  test('of memory is read as it was said, with prompts and other lines between', () => {
    const word = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
    const line = fc.record({ address: fc.nat(2 ** 31 - 1), words: fc.array(word, { minLength: 1, maxLength: 2 }) })
    const other = fc.constantFrom('', 'VBoxDbg> ', 'dbgf event/1: CPU 1 has halted! (raw)\r\n', 'rip=0000\r\n', '\r\n')
    const digits = (value: bigint | number) => value.toString(16).padStart(16, '0')
    fc.assert(
      fc.property(fc.array(fc.tuple(other, line)), (said) => {
        const text = said
          .map(([before, { address, words }]) => `${before}%%${digits(address)}: ${words.map(digits).join(' ')}\r\n`)
          .join('')
        expect([...memoryLines(text)]).toEqual(said.map(([, there]) => there))
      }),
    )
    expect(() => [...memoryLines(`%%ffffffffffffffff: ${digits(1)}`)]).toThrow(code('PROTOCOL'))
  })

  test('of any sort crashes nothing', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        for (const line of memoryLines(`%%${text}\n${text}\nerror: ${text}`)) expect(line).toBeDefined()
        complaintIn(text)
      }),
    )
  })

  test('of a store has the bytes in the right order', () => {
    expect(storeCommand(0x8108, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))).toBe('eq %%8108 0807060504030201')
    expect(storeCommand(2 ** 33, Uint8Array.of(0xab))).toBe('eb %%200000000 ab')
  })
})

test('no command ends at the last byte of the ring in which the console keeps its input', () => {
  const line = fc.stringMatching(/^([a-z]{1,9};){1,150}[a-z]\n$/)
  fc.assert(
    fc.property(line, fc.nat(10_000), (text, sent) => {
      const said = padded(text, sent)
      expect(said.trimStart()).toBe(text)
      for (let at = 2047 - (sent % 2048); at < said.length; at += 2048) expect(said[at]).not.toMatch(/[;\n]/)
    }),
  )
})

describe('a console', () => {
  test('is read and written at any address and length', { timeout: 30_000 }, async () => {
    const console = new DebugConsole('127.0.0.1', await peer('well'), 5000)
    const memory = new ConsoleMemory(console)
    fc.assert(
      fc.property(fc.nat(70_000), fc.integer({ min: 1, max: 3000 }), fc.nat(255), (address, length, seed) => {
        const bytes = Uint8Array.from({ length }, (_, index) => (index * 7 + seed) % 256)
        memory.write(address, bytes)
        const back = new Uint8Array(length)
        expect(memory.read(address, back)).toBe(length)
        expect(back).toEqual(bytes)
      }),
      { numRuns: 40 },
    )
    const long = new Uint8Array(2 ** 19 + 100)
    expect(memory.read(5, long)).toBe(long.length)
    expect(memory.read(2 ** 20 - 10, new Uint8Array(30))).toBe(10)
    expect(memory.read(2 ** 20, new Uint8Array(30))).toBe(0)
    console.close()
  })

  test('whose prompts and events come in between is understood', async () => {
    const console = new DebugConsole('127.0.0.1', await peer('chatty'), 5000)
    const memory = new ConsoleMemory(console)
    for (let round = 0; round < 5; round++) {
      memory.write(64, Uint8Array.of(1, 2, 3))
      const back = new Uint8Array(3)
      expect(memory.read(64, back)).toBe(3)
      expect([...back]).toEqual([1, 2, 3])
    }
    console.close()
  })

  test.each([
    ['mute', 'BUSY'],
    ['another', 'PROTOCOL'],
    ['gdb', 'PROTOCOL'],
    ['endless', 'PROTOCOL'],
  ])('that is %s is %s', { timeout: 20_000 }, async (manner, expected) => {
    const port = await peer(manner)
    expect(() => new DebugConsole('127.0.0.1', port, 3000)).toThrow(code(expected))
  })

  test('that says more than was asked, or complains, or has other text is believed in nothing', async () => {
    const long = new DebugConsole('127.0.0.1', await peer('long'), 3000)
    new ConsoleMemory(long).write(
      0,
      Uint8Array.from({ length: 64 }, (_, index) => index),
    )
    const back = new Uint8Array(8)
    expect(new ConsoleMemory(long).read(8, back)).toBe(8)
    expect([...back]).toEqual([8, 9, 10, 11, 12, 13, 14, 15])
    expect(() => new ConsoleMemory(long).read(0, new Uint8Array(40_000))).toThrow(code('PROTOCOL'))
    for (const [manner, expected] of [
      ['complaining', 'HYPERVISOR'],
      ['foreign', 'PROTOCOL'],
    ] as const) {
      const memory = new ConsoleMemory(new DebugConsole('127.0.0.1', await peer(manner), 3000))
      expect(() => memory.read(0, new Uint8Array(8)), manner).toThrow(code(expected))
      if (manner === 'complaining') expect(() => memory.write(0, back)).toThrow(code('HYPERVISOR'))
    }
  })

  test('that answers late does not answer the next line with it', async () => {
    const console = new DebugConsole('127.0.0.1', await peer('late'), 500)
    expect(() => console.ask(['eb %%1 ff', 'dq %%0 L 1'])).toThrow(code('TIMEOUT'))
    // What is late arrives before the answer to this.
    await setTimeout(300)
    const back = new Uint8Array(8)
    expect(new ConsoleMemory(console).read(0, back)).toBe(8)
    expect([...back]).toEqual([0, 255, 0, 0, 0, 0, 0, 0])
    console.close()
  })

  test('that stalls is TIMEOUT, that says too little PROTOCOL, that hangs up VM_GONE, that is not there VM_NOT_FOUND', async () => {
    const stalling = new DebugConsole('127.0.0.1', await peer('stalling'), 300)
    expect(() => stalling.ask(['dq %%0 L 1'])).toThrow(code('TIMEOUT'))
    const short = new ConsoleMemory(new DebugConsole('127.0.0.1', await peer('short'), 3000))
    expect(() => short.read(0, new Uint8Array(64))).toThrow(code('PROTOCOL'))
    const port = await peer('hanging-up')
    const ending = new DebugConsole('127.0.0.1', port, 3000)
    expect(() => ending.ask(['dq %%0 L 1'])).toThrow(code('VM_GONE'))
    for (const child of children.splice(0)) {
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    }
    expect(() => new DebugConsole('127.0.0.1', port, 1000)).toThrow(code('VM_NOT_FOUND'))
  })
})
