import { execFile } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { cacheDirectory } from './cache.ts'
import { LabUnavailable } from './lab-unavailable.ts'

const run = promisify(execFile)
const DAY = 24 * 60 * 60_000
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'

/**
 * apt's own tools on state of their own, so that no root is needed and the host's apt is left alone. What apt fetches
 * it checks against the archive's signatures as always.
 */
export class Apt {
  readonly #options: readonly string[]
  readonly #state: string

  /** @param suite another release of Debian than the host's, from the mirror that the host uses */
  constructor(suite?: string) {
    if (process.platform !== 'linux' || process.arch !== 'x64') throw new LabUnavailable('needs x86-64 Linux')
    if (!existsSync('/usr/bin/apt-get')) throw new LabUnavailable('needs a Debian-like system: there is no apt-get')
    const state = join(cacheDirectory(), `apt-${suite ?? 'host'}`)
    this.#state = state
    for (const part of ['lists/partial', 'archives/partial']) mkdirSync(join(state, part), { recursive: true })
    // The host's package state tells which libraries are there already. Another release's must all be fetched.
    const status = join(state, 'status')
    if (suite === undefined) copyFileSync('/var/lib/dpkg/status', status)
    else writeFileSync(status, '')
    const settings = {
      'Dir::State': state,
      'Dir::State::lists': join(state, 'lists'),
      'Dir::State::status': status,
      'Dir::Cache': state,
      'Dir::Cache::archives': join(state, 'archives'),
      'Debug::NoLocking': 'true',
      'APT::Get::List-Cleanup': 'false',
      'APT::Install-Recommends': 'false',
      'APT::Sandbox::User': '',
      'Acquire::Languages': 'none',
      'Acquire::Retries': '3',
      'Acquire::http::Timeout': '60',
      ...(suite === undefined ? {} : sourcesOf(suite, state)),
    }
    this.#options = Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`])
  }

  /** Fetches these packages into `directory`, with what they depend on and the host lacks; returns the files. */
  async download(packages: readonly string[], alone: readonly string[], directory: string): Promise<string[]> {
    await this.#update()
    const names = new Set([...packages, ...alone])
    if (packages.length > 0) {
      const { stdout } = await this.#apt(['apt-get', '--simulate', 'install', ...packages])
      for (const [, name] of stdout.matchAll(/^Inst (\S+)/gm)) if (name) names.add(name)
    }
    await this.#apt(['apt-get', 'download', ...names], directory)
    return readdirSync(directory).filter((file) => file.endsWith('.deb'))
  }

  /** The package that a metapackage stands for: its first dependency whose name begins so. */
  async dependencyOf(metapackage: string, prefix: string): Promise<string> {
    await this.#update()
    const { stdout } = await this.#apt(['apt-cache', 'depends', metapackage])
    const found = [...stdout.matchAll(/Depends: (\S+)/g)]
      .map(([, name]) => name)
      .find((name) => name?.startsWith(prefix))
    if (!found) throw new Error(`${metapackage} depends on no ${prefix}…:\n${stdout}`)
    return found
  }

  async #update(): Promise<void> {
    const stamp = join(this.#state, 'updated')
    if (existsSync(stamp) && Date.now() - statSync(stamp).mtimeMs < DAY) return
    await this.#apt(['apt-get', 'update'])
    writeFileSync(stamp, '')
  }

  async #apt([command = '', ...args]: readonly string[], cwd = this.#state) {
    try {
      return await run(command, [...this.#options, '-qq', ...args], { cwd, maxBuffer: 2 ** 26, timeout: 10 * 60_000 })
    } catch (error) {
      const { stderr = '' } = error as { stderr?: string }
      throw new LabUnavailable(`${command} ${args[0]} failed: ${stderr.trim() || String(error)}`, { cause: error })
    }
  }
}

/** Options that point apt at another release on the mirror of the host's own sources. */
function sourcesOf(suite: string, state: string): Record<string, string> {
  const sources = join(state, 'sources.list')
  writeFileSync(sources, `deb [signed-by=${KEYRING}] ${hostMirror()} ${suite} main contrib\n`)
  return { 'Dir::Etc::sourcelist': sources, 'Dir::Etc::sourceparts': '-', 'Acquire::Check-Valid-Until': 'false' }
}

function hostMirror(): string {
  const parts = '/etc/apt/sources.list.d'
  const files = [
    '/etc/apt/sources.list',
    ...(existsSync(parts) ? readdirSync(parts).map((file) => join(parts, file)) : []),
  ]
  for (const file of files.filter((name) => existsSync(name))) {
    const text = readFileSync(file, 'utf8')
    const uri =
      /^URIs:\s*(\S+\/debian\/?)(?:\s|$)/m.exec(text) ?? /^deb\s+(?:\[.*?\]\s+)?(\S+\/debian\/?)\s/m.exec(text)
    if (uri?.[1]) return uri[1]
  }
  throw new LabUnavailable('needs a Debian mirror in the apt sources of this machine: none was found')
}
