import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { once, unpacked } from '@microvmi/lab-debian'

const run = promisify(execFile)
const FLAGS = ['-O2', '-Wall', '-Wextra', '-Werror', '-static-libgcc']

/** A program or library to build. */
export interface Target {
  /** The file to make: `.dll` or `.exe`. */
  readonly name: string
  readonly sources: readonly string[]
  readonly flags?: readonly string[]
}

/** Builds Windows programs of the C sources in a directory; where they are. */
export async function compiled(directory: string, targets: readonly Target[]): Promise<string> {
  const root = await unpacked({ packages: ['gcc-mingw-w64-x86-64-posix'] })
  const hash = createHash('sha256').update(JSON.stringify([FLAGS, targets]))
  for (const file of readdirSync(directory).sort()) hash.update(file).update(readFileSync(join(directory, file)))
  return once(join('windows', hash.digest('hex').slice(0, 16)), async (out) => {
    for (const { name, sources, flags = [] } of targets) {
      const shared = name.endsWith('.dll') ? ['-shared'] : []
      const files = sources.map((source) => join(directory, source))
      await run(join(root, 'usr/bin/x86_64-w64-mingw32-gcc-posix'), [
        ...FLAGS,
        ...shared,
        '-o',
        join(out, name),
        ...files,
        ...flags,
      ])
    }
  })
}
