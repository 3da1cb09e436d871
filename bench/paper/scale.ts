import type { Unit } from './series.ts'

/** How values of a size are written. */
export interface Scale {
  readonly unit: string
  /** What a value is divided by. */
  readonly factor: number
}

const TIMES: readonly Scale[] = [
  { unit: 's', factor: 1e9 },
  { unit: 'ms', factor: 1e6 },
  { unit: 'µs', factor: 1e3 },
  { unit: 'ns', factor: 1 },
]

/** The scale in which the largest of the values is read best. */
export function scaleOf(unit: Unit, largest: number): Scale {
  if (unit === 'per second') return { unit: 'a second', factor: 1 }
  return TIMES.find(({ factor }) => largest >= factor) ?? { unit: 'ns', factor: 1 }
}

/** Three digits that say something, and none of them lost before the point. */
export function written(value: number, { factor }: Scale): string {
  const scaled = value / factor
  const digits = scaled >= 100 ? 0 : scaled >= 10 ? 1 : scaled >= 1 ? 2 : 3
  return scaled.toFixed(digits)
}

/** Round numbers from 0 to the first that is not below `largest`: four to nine of them. */
export function ticks(largest: number): number[] {
  const power = 10 ** Math.floor(Math.log10(largest / 4))
  const step = [1, 2, 5, 10].map((multiple) => multiple * power).find((one) => largest / one <= 8) ?? 10 * power
  const count = Math.ceil(largest / step)
  return Array.from({ length: count + 1 }, (_, index) => Number((index * step).toPrecision(12)))
}
