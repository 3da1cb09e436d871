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
  const failed = lines.find(({ name }) => name === 'failed')
  if (failed) throw new Error(`the guest failed: ${failed.text('what')} (errno ${failed.text('errno')})`)
  if (!lines.some(({ name }) => name === 'ready')) return undefined
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

/** What page `index` of the process `microvmi-known` holds (`fill` in guest/init.c). */
export function knownPage(index: number): Uint8Array {
  const page = new Uint8Array(4096)
  new TextEncoder().encodeInto('microvmi-known\r\n', page)
  new DataView(page.buffer).setBigUint64(16, BigInt(index), true)
  for (let at = 24; at < page.length; at++) page[at] = (index * 31 + at * 7) % 251
  return page
}

function pagesOf(known: Line, lines: readonly Line[]): number[] {
  const pages = new Map(lines.map((line) => [line.number('index'), line.number('physical')]))
  const count = known.number('pages')
  const indexes = [...pages.keys()].sort((a, b) => a - b)
  if (indexes.length !== count || indexes.some((index, place) => index !== place)) {
    throw new Error(`the guest has ${count} known pages, but told where these are: ${indexes.join(', ')}`)
  }
  return indexes.map((index) => pages.get(index) ?? 0)
}

/** The last line of this name. */
function only(name: string, lines: readonly Line[]): Line {
  const line = lines.filter((candidate) => candidate.name === name).at(-1)
  if (!line) throw new Error(`the guest is ready, but there is no whole line @${name} on its console`)
  return line
}

/** A line `@name key=value ...` of the guest's. */
class Line {
  readonly name: string
  readonly #fields: ReadonlyMap<string, string>

  constructor(name: string, fields: ReadonlyMap<string, string>) {
    this.name = name
    this.#fields = fields
  }

  text(key: string): string {
    const value = this.#fields.get(key)
    if (value === undefined) throw new Error(`the guest's line @${this.name} has no ${key}`)
    return value
  }

  bigint(key: string): bigint {
    const value = this.text(key)
    if (!/^(\d+|0x[0-9a-f]+)$/.test(value)) throw new Error(`the guest's line @${this.name} has ${key}=${value}`)
    return BigInt(value)
  }

  number(key: string): number {
    const value = Number(this.bigint(key))
    if (!Number.isSafeInteger(value)) throw new Error(`the guest's line @${this.name} has ${key}=${this.text(key)}`)
    return value
  }
}

/** The whole lines since the last `@boot`: a guest that was reset tells everything anew. */
function lastBoot(console: string): Line[] {
  // A line is whole when its newline is there, and when the kernel has written nothing into it.
  const lines = [...console.matchAll(/^@([a-z]+)((?: [a-z]+=[^\s=]+)*)\r?\n/gm)].map(([, name = '', rest = '']) => {
    const pairs = rest.split(' ').slice(1)
    return new Line(name, new Map(pairs.map((pair) => splitAt(pair, pair.indexOf('=')))))
  })
  return lines.slice(lines.map(({ name }) => name).lastIndexOf('boot') + 1)
}

function splitAt(pair: string, at: number): [string, string] {
  return [pair.slice(0, at), pair.slice(at + 1)]
}
