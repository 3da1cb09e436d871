import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Apt } from './apt.ts'
import { once } from './once.ts'
import { hostMirror, hostRelease, sourcesList } from './releases.ts'

const run = promisify(execFile)

/** Which packages a lab wants. */
export interface PackageSet {
  /** With what they depend on and the host lacks. */
  readonly packages?: readonly string[]
  /** Just these: a kernel, say, whose dependencies are about installing it. */
  readonly alone?: readonly string[]
  /** Metapackages and what their dependency is called: of `linux-image-cloud-amd64`, the `linux-image-6…` it stands for. */
  readonly metapackages?: readonly { readonly name: string; readonly prefix: string }[]
  /** Source packages, with Debian's patches applied, each in `usr/src/NAME`. They need a `suite`. */
  readonly sources?: readonly string[]
  /**
   * A release of Debian, from the mirror that the host uses; default: the host's own sources. Nothing is taken from the
   * host then: all that packages depend on is fetched. Of several, the first is preferred, and the others serve what it
   * lacks: `['bookworm-backports', 'bookworm']`.
   */
  readonly suite?: string | readonly string[]
}

/**
 * The directory that a set of packages was unpacked into: a root with `usr`, `boot` and so on. Fetched the first time,
 * found without a call of apt after that. Throws `LabUnavailable` where packages cannot be had.
 *
 * ```ts
 * const root = await unpacked({ packages: ['bochsbios', 'vgabios'], sources: ['bochs'], suite: 'trixie' })
 * // root/usr/share/bochs/BIOS-bochs-latest, root/usr/src/bochs/configure
 * ```
 */
export function unpacked(set: PackageSet): Promise<string> {
  const suites = set.suite === undefined ? [] : [set.suite].flat()
  const wrong = suites.find((suite) => !/^[a-z][a-z-]*$/.test(suite))
  if (wrong !== undefined) throw new RangeError(`there is no release of Debian called ${JSON.stringify(wrong)}`)
  const sources = set.sources ?? []
  if (sources.length > 0 && suites.length === 0) throw new TypeError('source packages need a suite to come from')
  return once(join('debian', keyOf(set)), async (directory) => {
    const apt = aptOf(suites, sources.length > 0)
    const alone = [...(set.alone ?? [])]
    for (const { name, prefix } of set.metapackages ?? []) alone.push(await apt.dependencyOf(name, prefix))
    const archives = join(directory, '.archives')
    mkdirSync(archives)
    const files = await apt.download(set.packages ?? [], alone, archives)
    for (const file of files) await run('dpkg-deb', ['--extract', join(archives, file), directory])
    rmSync(archives, { recursive: true })
    if (sources.length > 0) await unpackSources(apt, sources, directory)
  })
}

function aptOf(suites: readonly string[], withSources: boolean): Apt {
  const [release] = suites
  // The host's package state tells which libraries are there already. Another release's must all be fetched.
  if (release === undefined) return new Apt({ name: 'host', installed: '/var/lib/dpkg/status' })
  const name = [...suites, ...(withSources ? ['sources'] : [])].join('+')
  return new Apt({ name, sources: sourcesList(suites, hostMirror(), withSources), release })
}

async function unpackSources(apt: Apt, sources: readonly string[], directory: string): Promise<void> {
  const tools = await unpacked({ packages: ['dpkg-dev'] })
  const PATH = `${process.env.PATH}:${join(tools, 'usr/bin')}`
  const env = { ...process.env, LC_ALL: 'C', PATH, PERL5LIB: join(tools, 'usr/share/perl5') }
  const archives = join(directory, '.archives')
  mkdirSync(archives)
  mkdirSync(join(directory, 'usr/src'), { recursive: true })
  for (const { name, control } of await apt.downloadSources(sources, archives)) {
    const file = join(archives, `${name}.dsc`)
    writeFileSync(file, control)
    // apt has checked the files already, against the archive's signature.
    const extract = ['--no-check', '--extract', file, join(directory, 'usr/src', name)]
    await run(join(tools, 'usr/bin/dpkg-source'), extract, { env, maxBuffer: 2 ** 26 })
  }
  rmSync(archives, { recursive: true })
}

/** What a set unpacks to depends, without a release of its own, on the host's. */
function keyOf(set: PackageSet): string {
  const host = set.suite === undefined ? hostRelease() : ''
  return createHash('sha256')
    .update(JSON.stringify(set) + host)
    .digest('hex')
    .slice(0, 16)
}
