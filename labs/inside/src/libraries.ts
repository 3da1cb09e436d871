import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { LabUnavailable } from '@microvmi/lab-debian'

const run = promisify(execFile)

/** Where libraries are looked for, below a root. */
const LIBRARY_DIRECTORIES = ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu']

/**
 * The dynamic loader of an unpacked set of packages. Programs ask for it in /lib64, where there is a link that leads, in
 * an unpacked set, to this machine's own.
 */
export function loaderOf(root: string): string {
  // Debian 13's libc has no files in /lib any more.
  const paths = LIBRARY_DIRECTORIES.map((directory) => join(root, directory, 'ld-linux-x86-64.so.2'))
  return paths.find((path) => existsSync(path)) ?? join(root, 'lib64/ld-linux-x86-64.so.2')
}

/** The shared libraries that a program needs, as the dynamic loader of `root` finds them in `root`. */
export async function librariesOf(program: string, root: string): Promise<string[]> {
  const path = LIBRARY_DIRECTORIES.map((directory) => join(root, directory)).join(':')
  const { stdout } = await run(loaderOf(root), ['--library-path', path, '--list', program]).catch((error: unknown) => {
    throw new LabUnavailable(`${program} does not run with the libraries in ${root}: ${error}`, { cause: error })
  })
  const { found, missing } = loaderList(stdout)
  if (missing.length > 0) throw new LabUnavailable(`${program} needs ${missing.join(', ')}, which ${root} lacks`)
  return found
}

/** What `ld.so --list` printed: the paths of libraries, and the names of those that were not found (ld.so(8)). */
export function loaderList(text: string): { found: string[]; missing: string[] } {
  const found: string[] = []
  const missing: string[] = []
  for (const line of text.split('\n')) {
    const [, name = '', path] = /^\s*(\S+) => (?:not found|(\/.+) \(0x[0-9a-f]+\))$/.exec(line) ?? []
    if (path !== undefined) found.push(path)
    else if (name !== '') missing.push(name)
  }
  return { found, missing }
}
