/** What there is to say of many values. */
export interface Summary {
  readonly count: number
  readonly mean: number
  readonly median: number
  readonly minimum: number
  readonly maximum: number
  /** Of a sample: the squares are divided by one less than there are values. 0 of a single value. */
  readonly deviation: number
}

/** What a box plot shows. */
export interface Box {
  readonly median: number
  readonly mean: number
  /** The ends of the box: the first and the third quartile. */
  readonly lower: number
  readonly upper: number
  /** The ends of the whiskers: the outermost values within 1.5 lengths of the box (Tukey). */
  readonly low: number
  readonly high: number
  /** The values beyond. */
  readonly outliers: readonly number[]
}

/** Throws `RangeError` where there is no value. */
export function summarize(values: readonly number[]): Summary {
  const sorted = ascending(values)
  const mean = sum(sorted) / sorted.length
  const squares = sum(sorted.map((value) => (value - mean) ** 2))
  return {
    count: sorted.length,
    mean,
    median: quantile(sorted, 0.5),
    minimum: quantile(sorted, 0),
    maximum: quantile(sorted, 1),
    deviation: sorted.length > 1 ? Math.sqrt(squares / (sorted.length - 1)) : 0,
  }
}

/** Throws `RangeError` where there is no value. */
export function boxOf(values: readonly number[]): Box {
  const sorted = ascending(values)
  const lower = quantile(sorted, 0.25)
  const upper = quantile(sorted, 0.75)
  const reach = 1.5 * (upper - lower)
  const isWithin = (value: number) => value >= lower - reach && value <= upper + reach
  const within = sorted.filter(isWithin)
  return {
    median: quantile(sorted, 0.5),
    mean: sum(sorted) / sorted.length,
    lower,
    upper,
    // Where values are few, a quartile may lie beyond all values on its side that are no outliers.
    low: Math.min(within[0] ?? lower, lower),
    high: Math.max(within.at(-1) ?? upper, upper),
    outliers: sorted.filter((value) => !isWithin(value)),
  }
}

/** With values between two of them in proportion: the seventh way of Hyndman and Fan, as R and NumPy have it. */
function quantile(sorted: readonly number[], part: number): number {
  const at = (sorted.length - 1) * part
  const below = sorted[Math.floor(at)] ?? Number.NaN
  const above = sorted[Math.ceil(at)] ?? Number.NaN
  // Not below * (1 - x) + above * x: that may round to what lies beyond both.
  return below + (above - below) * (at - Math.floor(at))
}

function ascending(values: readonly number[]): number[] {
  if (values.length === 0) throw new RangeError('of no values there is nothing to say')
  return [...values].sort((a, b) => a - b)
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
