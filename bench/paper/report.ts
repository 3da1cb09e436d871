import { scaleOf, written } from './scale.ts'
import type { Measured } from './series.ts'
import { summarize } from './statistics.ts'

/** All series as a table of Markdown. */
export function tableOfValues(all: readonly Measured[]): string {
  const rows = all.flatMap(({ guest, task, unit, series }) =>
    series.map(({ name, values }) => {
      const summary = summarize(values)
      const scale = scaleOf(unit, summary.median)
      const { mean, median, minimum, maximum, deviation, count } = summary
      const numbers = [mean, median, minimum, maximum, deviation].map((value) => written(value, scale))
      return [`${guest}: ${task}`, name, ...numbers, scale.unit, String(count)]
    }),
  )
  return table(['', '', 'mean', 'median', 'minimum', 'maximum', 'standard deviation', '', 'values'], rows)
}

/** How microvmi's median is to the C program's. */
export interface Ratio {
  readonly task: string
  readonly ratio: number
  readonly wanted: string
  readonly isKept: boolean | undefined
}

/** For each task, microvmi's median divided by the C program's. */
export function ratios(all: readonly Measured[]): Ratio[] {
  return all.map(({ guest, task, unit, wanted, series }) => {
    const [ours, theirs] = series.map(({ values }) => summarize(values).median)
    const ratio = (ours ?? Number.NaN) / (theirs ?? Number.NaN)
    const isTime = unit === 'ns'
    return {
      task: `${guest}: ${task}`,
      ratio,
      wanted: wanted === undefined ? '' : `${isTime ? '≤' : '≥'} ${Number(wanted.toFixed(2))}`,
      isKept: wanted === undefined ? undefined : isTime ? ratio <= wanted : ratio >= wanted,
    }
  })
}

/** The ratios as a table of Markdown. */
export function tableOfRatios(all: readonly Measured[]): string {
  const kept = (isKept: boolean | undefined) => (isKept === undefined ? '' : isKept ? 'yes' : 'no')
  const rows = ratios(all).map(({ task, ratio, wanted, isKept }) => [task, ratio.toFixed(2), wanted, kept(isKept)])
  return table(['medians, microvmi / C', 'ratio', 'wanted', 'kept'], rows)
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((cell, column) => Math.max(3, cell.length, ...rows.map((row) => row[column]?.length ?? 0)))
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n')
}
