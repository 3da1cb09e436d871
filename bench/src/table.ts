/** What is measured: one sample of ours and one of the peer's a round, so that noise meets both. */
export interface Row {
  readonly name: string
  /** The ratio that ours may have to the peer's. */
  readonly limit: number
  readonly peer: string
  /** Nanoseconds of one of ours: wall time of a dump, processor time of a read. */
  ours(): number | Promise<number>
  /** Nanoseconds of one of the peer's. */
  theirs(): number | Promise<number>
}

/** A row's result, in nanoseconds. */
export interface Result {
  readonly name: string
  readonly peer: string
  readonly ours: number
  readonly theirs: number
  readonly ratio: number
  readonly limit: number
}

/** Measures a row in rounds, after one that does not count. The ratio is the median of the rounds' ratios. */
export async function measure(row: Row, rounds: number): Promise<Result> {
  await row.ours()
  await row.theirs()
  const ours: number[] = []
  const theirs: number[] = []
  for (let round = 0; round < rounds; round++) {
    ours.push(await row.ours())
    theirs.push(await row.theirs())
  }
  const ratios = ours.map((value, round) => value / (theirs[round] ?? Number.NaN))
  const { name, peer, limit } = row
  return { name, peer, ours: median(ours), theirs: median(theirs), ratio: median(ratios), limit }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

/** The results as a table of Markdown. */
export function markdown(results: readonly Result[]): string {
  const rows = results.map(({ name, peer, ours, theirs, ratio, limit }) => [
    name,
    time(ours),
    peer,
    time(theirs),
    ratio.toFixed(2),
    `≤ ${limit}`,
  ])
  const head = ['', 'microvmi', 'beside', 'takes', 'ratio', 'wanted']
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

function time(nanoseconds: number): string {
  if (nanoseconds >= 1e6) return `${(nanoseconds / 1e6).toFixed(1)} ms`
  if (nanoseconds >= 1e3) return `${(nanoseconds / 1e3).toFixed(2)} µs`
  return `${nanoseconds.toFixed(0)} ns`
}
