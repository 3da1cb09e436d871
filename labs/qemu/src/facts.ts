import { isReady, lastBoot, only } from './console-lines.ts'
import { pagesOf } from './known-pages.ts'

/** What the guest told on its console. Addresses that may be above 2^53 are bigints. */
export interface GuestFacts {
  /** The process `microvmi-known`: its pages' virtual address, and where each page is in physical memory. */
  readonly known: { readonly pid: number; readonly virtual: bigint; readonly physical: readonly number[] }
  readonly marks: Marks
  /** Kernel symbols: `init_task`, `_text`, `init_top_pgt`, `entry_SYSCALL_64`. */
  readonly symbols: Readonly<Record<string, bigint>>
  /** Bytes from the start of a kernel structure to a member: `task_struct.pid` and others. */
  readonly offsets: Readonly<Record<string, number>>
}

/** The process `microvmi-marks`. */
export interface Marks {
  readonly pid: number
  /** The function that it calls all the time; physically, `code`. */
  readonly landmark: bigint
  readonly code: number
  /**
   * Its counters (struct shared, guest/init.c), in every process of the guest; physically, `counters`. The first is
   * written before each call.
   */
  readonly shared: bigint
  readonly counters: number
}

/** The guest's own counts, told once a second. */
export interface Tick {
  readonly second: number
  /** Context switches since boot. */
  readonly switches: number
  /** Bytes handed from microvmi-ping to microvmi-pong or back. */
  readonly rounds: number
  readonly landmarks: number
  /** The int3 that microvmi-marks executed, and the signals that it got for them. */
  readonly breakpoints: number
  readonly traps: number
}

/**
 * Reads the facts of the guest's last boot, once it has told all of them; `undefined` before. Throws where the guest has
 * failed, or where what it told is not whole.
 */
export function factsIn(console: string): GuestFacts | undefined {
  const lines = lastBoot(console)
  if (!isReady(lines)) return undefined
  const known = only('known', lines)
  const marks = only('marks', lines)
  const table = (kind: string) => lines.filter(({ name }) => name === kind)
  return {
    known: { pid: known.number('pid'), virtual: known.bigint('virtual'), physical: pagesOf(known, table('page')) },
    marks: {
      pid: marks.number('pid'),
      landmark: marks.bigint('landmark'),
      code: marks.number('code'),
      shared: marks.bigint('shared'),
      counters: marks.number('counters'),
    },
    symbols: Object.fromEntries(table('symbol').map((line) => [line.text('name'), line.bigint('address')])),
    offsets: Object.fromEntries(table('offset').map((line) => [line.text('name'), line.number('bytes')])),
  }
}

/** The guest's last counts since its last boot. */
export function lastTick(console: string): Tick | undefined {
  const tick = lastBoot(console)
    .filter(({ name }) => name === 'tick')
    .at(-1)
  if (!tick) return undefined
  return {
    second: tick.number('second'),
    switches: tick.number('switches'),
    rounds: tick.number('rounds'),
    landmarks: tick.number('landmarks'),
    breakpoints: tick.number('breakpoints'),
    traps: tick.number('traps'),
  }
}
