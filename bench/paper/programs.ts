import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { Contestant } from './series.ts'

const run = promisify(execFile)

/** A C program that prints a value a line; the count of values is its last argument. */
export function cProgram(path: string, args: readonly (string | number)[]): Contestant {
  return {
    name: 'C',
    async loop(values) {
      const { stdout } = await run(path, [...args, values].map(String))
      return stdout.trim().split('\n').map(Number)
    },
  }
}
