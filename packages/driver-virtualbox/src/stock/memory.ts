import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import {
  type MemoryBackend,
  type MemoryLayout,
  type MemoryPiece,
  type MemoryRange,
  MicrovmiError,
  type PiecesOptions,
  type ScatteredRead,
} from '@microvmi/core/driver'
import type { ConsoleMemory } from './console-memory.ts'
import { DumpFile } from './dump-file.ts'
import type { VirtualBoxMachine } from './machine.ts'
import { parsePhysical } from './vboxmanage-output.ts'

/** What the console reads sooner than VirtualBox writes all of memory to a file. */
const CONSOLE_IS_FASTER = 128 * 1024
/** Milliseconds that a dump may take for each MiB: slow disks write 20 MiB/s. */
const DUMP_PER_MIB = 50
/** Before it begins: see VBoxManage's `ask`. */
const DUMP_START = 12_000

/** Memory of a stock VirtualBox: through the console where it is on, and as a core dump. */
export class VirtualBoxMemory implements MemoryBackend {
  readonly #machine: VirtualBoxMachine
  readonly #console: ConsoleMemory | undefined
  readonly #directory: string
  readonly #timeout: number
  #layout: MemoryLayout = { generation: 0, ranges: [] }

  /** @param directory where dumps are kept meanwhile */
  constructor(machine: VirtualBoxMachine, console: ConsoleMemory | undefined, directory: string, timeout: number) {
    this.#machine = machine
    this.#console = console
    this.#directory = directory
    this.#timeout = timeout
  }

  read(address: number, into: Uint8Array): number {
    return this.#needConsole().read(address, into)
  }

  readMany(reads: readonly ScatteredRead[], failed: (index: number, address: number) => void): void {
    this.#needConsole().readMany(reads, failed)
  }

  write(address: number, from: Uint8Array): number {
    const console = this.#needConsole()
    // The console writes command by command: what is not RAM has to be known before the first.
    const done = lengthIn(this.layout().ranges, address, from.length)
    if (done === from.length) console.write(address, from)
    return done
  }

  layout(): MemoryLayout {
    const ranges = parsePhysical(this.#machine.debug('info', 'phys'))
    if (ranges.length === 0) throw new MicrovmiError('PROTOCOL', 'VirtualBox names no memory of the VM')
    if (JSON.stringify(ranges) !== JSON.stringify(this.#layout.ranges)) {
      this.#layout = { generation: this.#layout.generation + 1, ranges }
    }
    return this.#layout
  }

  async *pieces({
    pieceLength,
    within,
  }: { readonly pieceLength: number } & PiecesOptions): AsyncGenerator<MemoryPiece> {
    const wanted = parts(this.layout().ranges, within)
    const total = wanted.reduce((sum, { length }) => sum + length, 0)
    if (total === 0) return
    const buffer = new Uint8Array(pieceLength)
    if (this.#console && total <= CONSOLE_IS_FASTER) {
      yield* inPieces(wanted, buffer, this.#console.read.bind(this.#console))
      return
    }
    const dump = await this.#dump(total)
    try {
      yield* inPieces(wanted, buffer, (address, into) => dump.read(address, into))
    } finally {
      dump.close()
    }
  }

  async #dump(total: number): Promise<DumpFile> {
    const timeout = this.#timeout + DUMP_START + Math.ceil(total / 2 ** 20) * DUMP_PER_MIB
    // Nobody else may look into it.
    const directory = mkdtempSync(join(this.#directory, 'microvmi-'))
    const remove = () => rmSync(directory, { recursive: true, force: true })
    try {
      const file = join(directory, 'core')
      await this.#machine.dump(file, timeout)
      return new DumpFile(file, remove)
    } catch (error) {
      remove()
      throw error
    }
  }

  #needConsole(): ConsoleMemory {
    if (this.#console) return this.#console
    throw new MicrovmiError('UNSUPPORTED', 'memory is read and written through the debug console, which is not on')
  }
}

async function* inPieces(
  wanted: readonly { readonly start: number; readonly length: number }[],
  buffer: Uint8Array,
  read: (address: number, into: Uint8Array) => number,
): AsyncGenerator<MemoryPiece> {
  for (const { start, length } of wanted) {
    for (let done = 0; done < length; done += buffer.length) {
      const bytes = buffer.subarray(0, Math.min(buffer.length, length - done))
      const address = start + done
      if (read(address, bytes) !== bytes.length) {
        throw new MicrovmiError('PROTOCOL', `the dump lacks memory that VirtualBox names, at 0x${address.toString(16)}`)
      }
      yield { address, length: bytes.length, bytes }
    }
  }
}

/** The ranges, or what of them is asked for. */
function parts(ranges: readonly MemoryRange[], within: PiecesOptions['within']) {
  const [first, last] = within ? [within.start, within.start + within.length] : [0, Number.POSITIVE_INFINITY]
  return ranges.flatMap(({ start, length }) => {
    const from = Math.max(start, first)
    const to = Math.min(start + length, last)
    return from < to ? [{ start: from, length: to - from }] : []
  })
}

/** How many of `length` bytes from `address` on are RAM without a gap. */
function lengthIn(ranges: readonly MemoryRange[], address: number, length: number): number {
  let done = 0
  for (const range of ranges) {
    const at = address + done
    if (range.kind !== 'ram' || at < range.start || at >= range.start + range.length) continue
    done = Math.min(length, range.start + range.length - address)
  }
  return done
}
