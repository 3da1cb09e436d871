import { MicrovmiError } from '@microvmi/core/driver'
import { complaintIn, MOST_LINE, MOST_WORDS, memoryLines, storeCommand } from './console-text.ts'
import type { DebugConsole } from './debug-console.ts'

const WORD = 8
/** Bytes of one `dq`, and of all of one line: more is not faster. */
const MOST_AT_ONCE = MOST_WORDS * WORD
const MOST_IN_A_LINE = 16 * MOST_AT_ONCE

/** Guest-physical memory through the debug console: many commands to a line, for a round trip takes 30 ms and more. */
export class ConsoleMemory {
  readonly #console: DebugConsole

  constructor(console: DebugConsole) {
    this.#console = console
  }

  /** Fills `into` and returns its length, or the offset of the first byte that is not memory. */
  read(address: number, into: Uint8Array): number {
    for (let done = 0; done < into.length; ) {
      const at = address + done
      // Whole words, and no more of them than a line has room for.
      const length = Math.min(into.length - done, MOST_IN_A_LINE - (at % WORD))
      const read = this.#readLine(at, into.subarray(done, done + length))
      done += read
      if (read < length) return done
    }
    return into.length
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

  #readLine(address: number, into: Uint8Array): number {
    const end = address + into.length
    const commands: string[] = []
    for (let at = address - (address % WORD); at < end; at += MOST_AT_ONCE) {
      const words = Math.min(MOST_WORDS, Math.ceil((end - at) / WORD))
      commands.push(`dq %%${at.toString(16)} L ${words.toString(16)}`)
    }
    let filled = 0
    let firstBad = end
    for (const line of memoryLines(this.#console.ask(commands))) {
      if ('error' in line) {
        if (line.address === undefined) throw new MicrovmiError('HYPERVISOR', `the debug console: ${line.error}`)
        firstBad = Math.min(firstBad, Math.max(line.address, address))
      } else {
        filled += place(line, address, into)
      }
    }
    if (firstBad < end) return firstBad - address
    if (filled !== into.length) {
      throw new MicrovmiError(
        'PROTOCOL',
        `the debug console gave ${filled} of ${into.length} bytes that were asked for`,
      )
    }
    return into.length
  }
}

/** Copies the words of a line that are asked for; returns how many bytes. */
function place(line: { readonly address: number; readonly words: readonly bigint[] }, start: number, into: Uint8Array) {
  let placed = 0
  for (const [index, word] of line.words.entries()) {
    let rest = word
    for (let byte = 0; byte < WORD; byte++, rest >>= 8n) {
      const offset = line.address + index * WORD + byte - start
      if (offset < 0 || offset >= into.length) continue
      into[offset] = Number(rest & 0xffn)
      placed += 1
    }
  }
  return placed
}

/** The longest aligned store that fits: 8, 4, 2 or 1 bytes. */
function storeLength(address: number, left: number): number {
  for (const length of [8, 4, 2]) if (address % length === 0 && left >= length) return length
  return 1
}
