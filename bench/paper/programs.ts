import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { Contestant, Unit } from './series.ts'

const run = promisify(execFile)

/** The name that C programs have in tables and plots. */
const C = 'C'

/** A C program that prints a value a line; the count of values is its last argument. */
export function cProgram(path: string, args: readonly (string | number)[], name = C): Contestant {
  return {
    name,
    async loop(values) {
      const { stdout } = await run(path, [...args, values].map(String))
      return stdout.trim().split('\n').map(Number)
    },
  }
}

/** A C program that prints one value. */
export function cProgramForEach(
  path: string,
  args: readonly (string | number)[],
  rated: (printed: number) => number,
): Contestant {
  return {
    name: C,
    async loop(values) {
      const all: number[] = []
      for (let count = 0; count < values; count++) {
        const { stdout } = await run(path, args.map(String))
        all.push(rated(Number(stdout)))
      }
      return all
    },
  }
}

const LONELY_NUMBER = /^\s*(\d+(?:\.\d+)?)\s*$/

/**
 * Somebody else's command, once for each value, in a shell with `environment`. Where all that it prints is a number,
 * that is its value, in the task's unit; else it is the nanoseconds from its start to its end. A rate must be printed.
 */
export function command(line: string, unit: Unit, environment: Readonly<Record<string, string>>): Contestant {
  const env = { ...process.env, ...environment }
  return {
    name: 'compared',
    async loop(values) {
      const all: number[] = []
      for (let count = 0; count < values; count++) {
        const started = performance.now()
        const { stdout } = await run('sh', ['-c', line], { env, maxBuffer: 2 ** 28 })
        const elapsed = (performance.now() - started) * 1e6
        const printed = LONELY_NUMBER.exec(stdout)?.[1]
        if (printed === undefined && unit !== 'ns') {
          throw new Error(`'${line}' must print its rate, a number, and printed: ${stdout.slice(0, 200)}`)
        }
        all.push(printed === undefined ? elapsed : Number(printed))
      }
      return all
    },
  }
}
