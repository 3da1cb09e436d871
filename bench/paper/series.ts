/** What a value is: nanoseconds that something took, or how often something happened in a second. */
export type Unit = 'ns' | 'per second'

/** Who does a task. */
export interface Contestant {
  readonly name: string
  /** Does the task in a session, or a process, of its own, as often as values are wanted. */
  loop(values: number): readonly number[] | Promise<readonly number[]>
}

/** What is measured, and who is. */
export interface Task {
  readonly name: string
  readonly unit: Unit
  /** Less than all, for what takes long. */
  readonly valuesPerLoop?: number
  /** microvmi and its limit, a C program, in this order; then whoever else is to be beside them. */
  readonly contestants: readonly Contestant[]
  /**
   * The ratio wanted of microvmi's median to the C program's: at most so much where a value is a time, at least so much
   * where it is a rate.
   */
  readonly wanted?: number
}

/** What was measured of one contestant. */
export interface Series {
  readonly name: string
  readonly values: readonly number[]
}

/** What was measured of a task. */
export interface Measured {
  readonly guest: string
  readonly task: string
  readonly unit: Unit
  readonly wanted: number | undefined
  readonly series: readonly Series[]
}

/** How much is measured. */
export interface Amount {
  readonly loops: number
  readonly valuesPerLoop: number
}

/** Measures loop by loop, all contestants in each, so that noise meets all of them. */
export async function measure(guest: string, task: Task, amount: Amount): Promise<Measured> {
  const perLoop = Math.min(task.valuesPerLoop ?? amount.valuesPerLoop, amount.valuesPerLoop)
  const series = task.contestants.map(({ name }) => ({ name, values: [] as number[] }))
  for (let loop = 0; loop < amount.loops; loop++) {
    for (const [index, contestant] of task.contestants.entries()) {
      const values = await contestant.loop(perLoop)
      if (values.length !== perLoop || !values.every((value) => value > 0)) {
        throw new Error(`${contestant.name} told no ${perLoop} values of '${task.name}', but ${values.join(', ')}`)
      }
      series[index]?.values.push(...values)
    }
  }
  return { guest, task: task.name, unit: task.unit, wanted: task.wanted, series }
}
