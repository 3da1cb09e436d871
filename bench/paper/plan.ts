import type { Amount } from './series.ts'

/** The paper's tasks. */
const PAPER_TASKS = ['dump', 'registers', 'events'] as const
export type PaperTask = (typeof PAPER_TASKS)[number]

/** What to measure, on each guest. */
export interface Plan extends Amount {
  /** Commands to be timed beside microvmi and C. */
  readonly compare: Readonly<Partial<Record<PaperTask, string>>>
}

/** As the paper measured: ten loops of ten values. */
export const FULL: Amount = { loops: 10, valuesPerLoop: 10 }
export const QUICK: Amount = { loops: 2, valuesPerLoop: 3 }

/** MiB of a guest's RAM. */
export const MEMORY_MIB = 128

/** `TASK=COMMAND`, each. Throws `RangeError`. */
export function parseComparisons(texts: readonly string[]): Plan['compare'] {
  const compare: Partial<Record<PaperTask, string>> = {}
  for (const text of texts) {
    const [, name, line] = /^(\w+)=(.+)$/s.exec(text) ?? []
    const task = PAPER_TASKS.find((one) => one === name)
    if (!task || !line)
      throw new RangeError(`--compare takes TASK=COMMAND, TASK one of ${PAPER_TASKS.join(', ')}: ${text}`)
    compare[task] = line
  }
  return compare
}
