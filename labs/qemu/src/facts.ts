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
  /** Its counters (struct shared, guest/init.c), of which it writes the first at every turn; physically, `counters`. */
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

interface Line {
  readonly name: string
  readonly fields: Readonly<Record<string, string>>
}

/** Reads the facts, once the guest has told all of them; `undefined` before. */
export function factsIn(console: string): GuestFacts | undefined {
  const lines = linesOf(console)
  const known = lines.find(({ name }) => name === 'known')
  const marks = lines.find(({ name }) => name === 'marks')
  const isReady = lines.some(({ name }) => name === 'ready') && lines.some(({ name }) => name === 'known-done')
  if (!known || !marks || !isReady) return undefined
  const table = (kind: string) => lines.filter(({ name }) => name === kind).map(({ fields }) => fields)
  return {
    known: {
      pid: Number(known.fields.pid),
      virtual: BigInt(known.fields.virtual ?? 0),
      physical: table('page').map((page) => Number(page.physical)),
    },
    marks: {
      pid: Number(marks.fields.pid),
      landmark: BigInt(marks.fields.landmark ?? 0),
      code: Number(marks.fields.code),
      shared: BigInt(marks.fields.shared ?? 0),
      counters: Number(marks.fields.counters),
    },
    symbols: Object.fromEntries(table('symbol').map(({ name, address }) => [name, BigInt(address ?? 0)])),
    offsets: Object.fromEntries(table('offset').map(({ name, bytes }) => [name, Number(bytes)])),
  }
}

/** The guest's last counts. */
export function lastTick(console: string): Tick | undefined {
  const fields = linesOf(console)
    .filter(({ name }) => name === 'tick')
    .at(-1)?.fields
  if (!fields) return undefined
  const count = (name: string) => Number(fields[name])
  return {
    second: count('second'),
    switches: count('switches'),
    rounds: count('rounds'),
    landmarks: count('landmarks'),
    breakpoints: count('breakpoints'),
    traps: count('traps'),
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

function linesOf(console: string): Line[] {
  // A line is whole when its newline is there.
  return [...console.matchAll(/^@([a-z-]+)(.*)\r?\n/gm)].map(([, name = '', rest = '']) => ({
    name,
    fields: Object.fromEntries([...rest.matchAll(/(\S+)=(\S+)/g)].map(([, key, value]) => [key, value])) as Record<
      string,
      string
    >,
  }))
}
