import { MicrovmiError, type ScatteredRead } from '@microvmi/core/driver'
import { complaintIn, MOST_LINE, MOST_WORDS, memoryLines, storeCommand } from './console-text.ts'
import type { CommandLine } from './debug-console.ts'

const WORD = 8
/** Words of all commands of one line: more is not faster. */
const MOST_WORDS_IN_A_LINE = 16 * MOST_WORDS

/** What one `dq` reads: whole words, of which the bytes that are asked for go into `into`. */
interface Part {
  /** Which of the reads. */
  readonly index: number
  readonly into: Uint8Array
  /** Where the first byte of `into` is. */
  readonly start: number
  /** Where the first word is. */
  readonly from: number
  readonly words: number
}

/** Guest-physical memory through the debug console: many commands to a line, for a round trip takes 20 ms and more. */
export class ConsoleMemory {
  readonly #console: CommandLine

  constructor(console: CommandLine) {
    this.#console = console
  }

  /** Fills `into` and returns its length, or the offset of the first byte that is not memory. */
  read(address: number, into: Uint8Array): number {
    let bad = address + into.length
    this.readMany([{ address, into }], (_, at) => {
      bad = at
    })
    return bad - address
  }

  /** Many reads; `failed` has the index of each one that touches what is not memory, and the first such address. */
  readMany(reads: readonly ScatteredRead[], failed: (index: number, address: number) => void): void {
    const bad = new Set<number>()
    const note = (index: number, address: number) => {
      bad.add(index)
      failed(index, address)
    }
    let line: Part[] = []
    let [characters, words] = [0, 0]
    for (const part of partsOf(reads)) {
      if (bad.has(part.index)) continue
      const { length } = dumpCommand(part)
      if (characters + length + 1 > MOST_LINE || words + part.words > MOST_WORDS_IN_A_LINE) {
        this.#readLine(line, note)
        line = []
        characters = 0
        words = 0
        // What has failed meanwhile is not read on.
        if (bad.has(part.index)) continue
      }
      line.push(part)
      characters += length + 1
      words += part.words
    }
    if (line.length > 0) this.#readLine(line, note)
  }

  /** Writes what is known to be memory. */
  write(address: number, from: Uint8Array): void {
    let line: string[] = []
    let room = MOST_LINE
    for (let done = 0; done < from.length; ) {
      const length = storeLength(address + done, from.length - done)
      const command = storeCommand(address + done, from.subarray(done, done + length))
      if (command.length + 1 > room) {
        this.#store(line)
        line = []
        room = MOST_LINE
      }
      line.push(command)
      room -= command.length + 1
      done += length
    }
    if (line.length > 0) this.#store(line)
  }

  #store(line: readonly string[]): void {
    const complaint = complaintIn(this.#console.ask(line))
    if (complaint !== undefined) throw new MicrovmiError('HYPERVISOR', `the debug console: ${complaint}`)
  }

  /** The answers come in the order of the commands; each ends with its last word, or a complaint. */
  #readLine(parts: readonly Part[], failed: (index: number, address: number) => void): void {
    const bad = new Set<number>()
    const lines = memoryLines(this.#console.ask(parts.map(dumpCommand)))
    for (const { index, into, start, from, words } of parts) {
      for (let done = 0; done < words; ) {
        const said = lines.next().value
        if (said && 'error' in said) {
          if (said.address === undefined) throw new MicrovmiError('HYPERVISOR', `the debug console: ${said.error}`)
          if (!bad.has(index)) failed(index, checked(said.address, Math.max(start, from), from + words * WORD))
          bad.add(index)
          break
        }
        if (said?.address !== from + done * WORD || said.words.length > words - done) throw incomplete(from, words)
        place(said, start, into)
        done += said.words.length
      }
    }
    for (const said of lines) if (!('error' in said)) throw incomplete(said.address, 0)
  }
}

/** The commands that read all of these. */
function* partsOf(reads: readonly ScatteredRead[]): Generator<Part> {
  for (const [index, { address: start, into }] of reads.entries()) {
    if (into.length === 0) continue
    const end = start + into.length
    for (let from = start - (start % WORD); from < end; from += MOST_WORDS * WORD) {
      yield { index, into, start, from, words: Math.min(MOST_WORDS, Math.ceil((end - from) / WORD)) }
    }
  }
}

function dumpCommand({ from, words }: Part): string {
  return `dq %%${from.toString(16)} L ${words.toString(16)}`
}

/** An address that the console complains of: within what was asked for. */
function checked(address: number, first: number, end: number): number {
  if (address < end) return Math.max(first, address)
  throw new MicrovmiError(
    'PROTOCOL',
    `the debug console complains of 0x${address.toString(16)}, which was not asked for`,
  )
}

function incomplete(address: number, words: number): MicrovmiError {
  const where = `0x${address.toString(16)}`
  return new MicrovmiError(
    'PROTOCOL',
    `the debug console does not give the ${words} words at ${where}: another version?`,
  )
}

/** Copies the bytes of a line that are asked for. */
function place(
  line: { readonly address: number; readonly words: readonly bigint[] },
  start: number,
  into: Uint8Array,
): void {
  for (const [index, word] of line.words.entries()) {
    let rest = word
    for (let byte = 0; byte < WORD; byte++, rest >>= 8n) {
      const offset = line.address + index * WORD + byte - start
      if (offset < 0 || offset >= into.length) continue
      into[offset] = Number(rest & 0xffn)
    }
  }
}

/** The longest aligned store that fits: 8, 4, 2 or 1 bytes. */
function storeLength(address: number, left: number): number {
  for (const length of [8, 4, 2]) if (address % length === 0 && left >= length) return length
  return 1
}
