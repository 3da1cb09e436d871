import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { explain } from './apt-complaint.ts'
import { cacheDirectory } from './cache.ts'
import { LabUnavailable } from './lab-unavailable.ts'
import { locked } from './lock.ts'
import { type SourcePackage, sourcePackages } from './source-package.ts'

const run = promisify(execFile)
const HOUR = 60 * 60_000
const COMMAND_LIMIT = 10 * 60_000

/** Where packages come from. */
export interface AptOptions {
  /** Names the directory in the cache that apt's state is kept in. */
  readonly name: string
  /** The text of a sources.list(5); default: the host's own sources. */
  readonly sources?: string
  /** The release that is preferred where several have a package. */
  readonly release?: string
  /** The dpkg status that tells what is there already and need not be fetched; default: nothing is. */
  readonly installed?: string
}

/**
 * apt's own tools on state of their own, so that no root is needed and the host's apt is left alone. What apt fetches
 * it checks against the archive's signatures as always.
 */
export class Apt {
  readonly #name: string
  readonly #settings: readonly string[]
  readonly #state: string
  readonly #hasInstalled: boolean

  constructor({ name, sources, release, installed }: AptOptions) {
    if (process.platform !== 'linux' || process.arch !== 'x64') throw new LabUnavailable('needs x86-64 Linux')
    if (!existsSync('/usr/bin/apt-get')) throw new LabUnavailable('needs a Debian-like system: there is no apt-get')
    const state = join(cacheDirectory(), `apt-${name}`)
    this.#name = name
    this.#state = state
    this.#hasInstalled = installed !== undefined
    for (const part of ['lists/partial', 'archives/partial']) mkdirSync(join(state, part), { recursive: true })
    const status = join(state, 'status')
    replace(status, installed === undefined ? '' : readFileSync(installed))
    const sourcesList = join(state, 'sources.list')
    if (sources !== undefined) replace(sourcesList, sources)
    const settings = {
      'Dir::State': state,
      'Dir::State::lists': join(state, 'lists'),
      'Dir::State::status': status,
      'Dir::Cache': state,
      'Dir::Cache::archives': join(state, 'archives'),
      // The one command that needs a lock is serialized below: apt would not wait for its own, but fail.
      'Debug::NoLocking': 'true',
      'APT::Get::List-Cleanup': 'false',
      'APT::Install-Recommends': 'false',
      'APT::Sandbox::User': '',
      'Acquire::Languages': 'none',
      'Acquire::Retries': '3',
      'Acquire::http::Timeout': '60',
      ...(sources === undefined
        ? {}
        : { 'Dir::Etc::sourcelist': sourcesList, 'Dir::Etc::sourceparts': '-', 'Acquire::Check-Valid-Until': 'false' }),
      ...(release === undefined ? {} : { 'APT::Default-Release': release }),
    }
    this.#settings = Object.entries(settings).flatMap(([key, value]) => ['-o', `${key}=${value}`])
  }

  /** Fetches these packages into `directory`, with what they depend on and the host lacks; returns the files. */
  download(packages: readonly string[], alone: readonly string[], directory: string): Promise<string[]> {
    return this.#withIndex(async () => {
      const wanted = [...(packages.length > 0 ? await this.#withDependencies(packages) : []), ...alone]
      if (wanted.length > 0) await this.#apt('apt-get', ['download'], [...new Set(wanted)], directory)
      return readdirSync(directory).filter((file) => file.endsWith('.deb'))
    }, directory)
  }

  /** Fetches source packages into `directory`; returns what the archive's index has of each. */
  downloadSources(packages: readonly string[], directory: string): Promise<SourcePackage[]> {
    return this.#withIndex(async () => {
      for (const part of ['--tar-only', '--diff-only']) {
        await this.#apt('apt-get', ['--download-only', part, 'source'], packages, directory)
      }
      const index = await this.#apt('apt-cache', ['--only-source', 'showsrc'], packages)
      const found = sourcePackages(index, readdirSync(directory))
      const missing = packages.filter((wanted) => !found.some(({ name }) => name === wanted))
      if (missing.length > 0) throw new LabUnavailable(`the archive has no source package ${missing.join(', ')}`)
      return found
    }, directory)
  }

  /** The package that a metapackage stands for: its first dependency whose name begins so. */
  dependencyOf(metapackage: string, prefix: string): Promise<string> {
    return this.#withIndex(async () => {
      const answer = await this.#apt('apt-cache', ['depends', '--important'], [metapackage])
      const found = [...answer.matchAll(/Depends: (\S+)/g)].map(([, name]) => name)
      const dependency = found.find((name) => name?.startsWith(prefix))
      if (!dependency) throw new Error(`${metapackage} depends on no ${prefix}…:\n${answer}`)
      return dependency
    })
  }

  async #withDependencies(packages: readonly string[]): Promise<string[]> {
    const answer = await this.#apt('apt-get', ['--simulate', 'install'], packages)
    // "Inst NAME [INSTALLED] (VERSION RELEASE [ARCHITECTURE])"; what the host has already is not there.
    const versions = new Map(
      [...answer.matchAll(/^Inst (\S+) (?:\[\S+\] )?\((\S+) /gm)].map(([, name = '', version = '']) => [name, version]),
    )
    const siblings = this.#hasInstalled ? await this.#siblings(packages) : []
    const missing = [...packages, ...siblings].filter((name) => !versions.has(name))
    return [...[...versions].map(([name, version]) => `${name}=${version}`), ...missing]
  }

  /**
   * The dependencies that were built from the same source. They belong into the same root even where the host has them:
   * a program's data and modules, which it looks for beside itself.
   */
  async #siblings(packages: readonly string[]): Promise<string[]> {
    const answer = await this.#apt('apt-cache', ['depends', '--recurse', '--important'], packages)
    const names = [...answer.matchAll(/^(\w\S*)$/gm)].map(([name]) => name)
    const sources = new Map(
      (await this.#apt('apt-cache', ['show', '--no-all-versions'], names)).split(/\n\n+/).map((paragraph) => {
        const name = /^Package: (\S+)/m.exec(paragraph)?.[1] ?? ''
        return [name, /^Source: (\S+)/m.exec(paragraph)?.[1] ?? name]
      }),
    )
    const wanted = new Set(packages.map((name) => sources.get(name)))
    return names.filter((name) => wanted.has(sources.get(name)))
  }

  /** Works with an index of today, and once more with a newer one where it fails: the archive may have moved on. */
  async #withIndex<T>(work: () => Promise<T>, directory?: string): Promise<T> {
    await this.#update(24 * HOUR)
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof LabUnavailable) || !(await this.#update(HOUR))) throw error
    }
    if (directory) for (const file of readdirSync(directory)) rmSync(join(directory, file))
    return await work()
  }

  /** Fetches the index, if it is older than this; returns whether it did. */
  #update(age: number): Promise<boolean> {
    const stamp = join(this.#state, 'updated')
    const isRecent = () => existsSync(stamp) && Date.now() - statSync(stamp).mtimeMs < age
    if (isRecent()) return Promise.resolve(false)
    return locked(basename(this.#state), async () => {
      if (isRecent()) return false
      await this.#apt('apt-get', ['update'], [])
      writeFileSync(stamp, '')
      return true
    })
  }

  async #apt(command: string, verb: readonly string[], packages: readonly string[], cwd = this.#state) {
    // The kernel ends apt when this process has ended: nothing works on the state after its lock is free.
    const line = ['--pdeathsig', 'KILL', '--', command, ...this.#settings, '-q', ...verb, ...packages]
    const options = { cwd, maxBuffer: 2 ** 26, timeout: COMMAND_LIMIT, env: { ...process.env, LC_ALL: 'C' } }
    try {
      return (await run('setpriv', line, options)).stdout
    } catch (error) {
      const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
      const said = `${stderr}\n${stdout}`.trim() || String(error)
      throw new LabUnavailable(explain([command, ...verb].join(' '), packages, this.#name, said), { cause: error })
    }
  }
}

/** Writes a file so that who reads it sees all of it, before or after. */
function replace(path: string, content: string | Uint8Array): void {
  const whole = `${path}-${randomUUID()}`
  writeFileSync(whole, content)
  renameSync(whole, path)
}
