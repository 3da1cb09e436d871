import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Apt } from './apt.ts'
import { once } from './once.ts'

const run = promisify(execFile)

/** Which packages a lab wants. */
export interface PackageSet {
  /** With what they depend on and the host lacks. */
  readonly packages?: readonly string[]
  /** Just these: a kernel, say, whose dependencies are about installing it. */
  readonly alone?: readonly string[]
  /** Metapackages and what their dependency is called: of `linux-image-cloud-amd64`, the `linux-image-6…` it stands for. */
  readonly metapackages?: readonly { readonly name: string; readonly prefix: string }[]
  /** A release of Debian; default: the host's own sources. */
  readonly suite?: string
}

/**
 * The directory that a set of packages was unpacked into: a root with `usr`, `boot` and so on. Fetched the first time,
 * found without a call of apt after that. Throws `LabUnavailable` where packages cannot be had.
 */
export function unpacked(set: PackageSet): Promise<string> {
  const key = createHash('sha256').update(JSON.stringify(set)).digest('hex').slice(0, 16)
  return once(join('debian', key), async (directory) => {
    const apt = new Apt(set.suite)
    const alone = [...(set.alone ?? [])]
    for (const { name, prefix } of set.metapackages ?? []) alone.push(await apt.dependencyOf(name, prefix))
    const archives = join(directory, '.archives')
    mkdirSync(archives)
    const files = await apt.download(set.packages ?? [], alone, archives)
    for (const file of files) await run('dpkg-deb', ['--extract', join(archives, file), directory])
    rmSync(archives, { recursive: true })
  })
}
