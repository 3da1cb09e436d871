import { setTimeout } from 'node:timers/promises'
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import { ConsoleMemory } from './console-memory.ts'
import { complaintIn, memoryLines, padded, storeCommand } from './console-text.ts'
import { DebugConsole } from './debug-console.ts'
import { Peers } from './peer-process.testing.ts'

const code = (expected: string) => expect.objectContaining({ code: expected })
/** The console's bytes are read as Latin-1. */
const latin1 = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes).toString('latin1'))
const peers = new Peers(new URL('./console-peer.testing.ts', import.meta.url))
const peer = (manner: string) => peers.start(manner)
afterEach(() => peers.stop())

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
      fc.property(latin1, (text) => {
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
      fc.property(fc.nat(70_000), fc.integer({ min: 1, max: 600 }), fc.nat(255), (address, length, seed) => {
        const bytes = Uint8Array.from({ length }, (_, index) => (index * 7 + seed) % 256)
        memory.write(address, bytes)
        const back = new Uint8Array(length)
        expect(memory.read(address, back)).toBe(length)
        expect(back).toEqual(bytes)
      }),
      { numRuns: 20 },
    )
    const long = new Uint8Array(2 ** 19 + 100)
    expect(memory.read(5, long)).toBe(long.length)
    expect(memory.read(2 ** 20 - 10, new Uint8Array(30))).toBe(10)
    expect(memory.read(2 ** 20, new Uint8Array(30))).toBe(0)
    console.close()
  })

  test('gives scattered reads, failed ones among good ones, in few lines', { timeout: 30_000 }, async () => {
    const console = new DebugConsole('127.0.0.1', await peer('well'), 5000)
    const memory = new ConsoleMemory(console)
    const bytes = Uint8Array.from({ length: 600 }, (_, index) => (index * 7) % 251)
    memory.write(0, bytes)
    const length = fc.oneof(fc.nat(40), fc.integer({ min: 2 ** 14, max: 2 ** 15 }))
    const address = fc.oneof(fc.nat(500), fc.integer({ min: 2 ** 20 - 50, max: 2 ** 20 + 50 }))
    fc.assert(
      fc.property(fc.array(fc.record({ address, length }), { maxLength: 80 }), (wanted) => {
        const reads = wanted.map((one) => ({ address: one.address, into: new Uint8Array(one.length) }))
        const failures = new Map<number, number>()
        memory.readMany(reads, (index, at) => {
          expect(failures.has(index)).toBe(false)
          failures.set(index, at)
        })
        for (const [index, read] of reads.entries()) {
          const isGood = read.into.length === 0 || read.address + read.into.length <= 2 ** 20
          expect(failures.get(index)).toBe(isGood ? undefined : Math.max(read.address, 2 ** 20))
          if (!isGood || read.address >= 600) continue
          const known = bytes.subarray(read.address, read.address + read.into.length)
          expect(Buffer.compare(read.into.subarray(0, known.length), known)).toBe(0)
        }
      }),
      { numRuns: 15 },
    )
    console.close()
  })

  test('whose prompts and events come in between is understood', { timeout: 20_000 }, async () => {
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

  test.each([
    ['long', 'PROTOCOL'],
    ['complaining', 'HYPERVISOR'],
    ['foreign', 'PROTOCOL'],
  ])(
    'that is %s, where memory was asked for, is believed in nothing: %s',
    { timeout: 20_000 },
    async (manner, expected) => {
      const console = new DebugConsole('127.0.0.1', await peer(manner), 3000)
      const memory = new ConsoleMemory(console)
      expect(() => memory.read(0, new Uint8Array(8))).toThrow(code(expected))
      expect(() => memory.read(0, new Uint8Array(4000))).toThrow(code(expected))
      console.close()
    },
  )

  test('that answers late does not answer the next line with it', { timeout: 20_000 }, async () => {
    const console = new DebugConsole('127.0.0.1', await peer('late'), 1500)
    expect(() => console.ask(['eb %%1 ff', 'dq %%0 L 1'])).toThrow(code('TIMEOUT'))
    // What is late arrives before the answer to this.
    await setTimeout(300)
    const back = new Uint8Array(8)
    expect(new ConsoleMemory(console).read(0, back)).toBe(8)
    expect([...back]).toEqual([0, 255, 0, 0, 0, 0, 0, 0])
    console.close()
  })

  test('that stalls is TIMEOUT, that says too little PROTOCOL, that hangs up VM_GONE, that is not there VM_NOT_FOUND', {
    timeout: 20_000,
  }, async () => {
    const stalling = new DebugConsole('127.0.0.1', await peer('stalling'), 1500)
    expect(() => stalling.ask(['dq %%0 L 1'])).toThrow(code('TIMEOUT'))
    const short = new ConsoleMemory(new DebugConsole('127.0.0.1', await peer('short'), 3000))
    expect(() => short.read(0, new Uint8Array(64))).toThrow(code('PROTOCOL'))
    const port = await peer('hanging-up')
    const ending = new DebugConsole('127.0.0.1', port, 3000)
    expect(() => ending.ask(['dq %%0 L 1'])).toThrow(code('VM_GONE'))
    await peers.stop()
    expect(() => new DebugConsole('127.0.0.1', port, 1000)).toThrow(code('VM_NOT_FOUND'))
  })
})
