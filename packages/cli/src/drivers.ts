import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { MicrovmiError, registrations } from '@microvmi/core'

/** A driver package that could not be imported. */
export interface DriverFailure {
  readonly package: string
  readonly error: MicrovmiError
}

/** A driver package and where it is installed. */
interface Installed {
  readonly name: string
  readonly directory: string
}

/** Imports the driver packages that are installed, each once; what fails is kept for `doctor` and for error messages. */
export class Drivers {
  readonly failures: DriverFailure[] = []
  readonly #installed: readonly Installed[]
  readonly #imported = new Set<string>()

  /** @param directory the user's project is there or above */
  constructor(directory: string) {
    this.#installed = installedDrivers([directory, dirname(fileURLToPath(import.meta.url))])
  }

  /** Every driver. */
  async importAll(): Promise<void> {
    for (const installed of this.#installed) await this.#import(installed)
  }

  /** The driver of a scheme: its package is called after it as a rule, so that the others need not be loaded. */
  async importFor(scheme: string): Promise<void> {
    const isLikely = ({ name }: Installed) => name.endsWith(`/${scheme}`) || name.endsWith(`driver-${scheme}`)
    for (const installed of this.#installed.filter(isLikely)) await this.#import(installed)
    if (!registrations().some(({ driver }) => driver.scheme === scheme)) await this.importAll()
  }

  async #import({ name, directory }: Installed): Promise<void> {
    if (this.#imported.has(name)) return
    this.#imported.add(name)
    try {
      await import(pathToFileURL(join(directory, entryOf(directory))).href)
    } catch (error) {
      const message = `driver package ${name} in ${directory} cannot be imported: ${String(error)}`
      this.failures.push({ package: name, error: new MicrovmiError('DRIVER_UNAVAILABLE', message, { cause: error }) })
    }
  }
}

/** Packages named like drivers in the node_modules of these directories and of those above them, the nearest of each. */
function installedDrivers(directories: readonly string[]): Installed[] {
  const found = new Map<string, Installed>()
  for (const start of directories) {
    for (let directory = start; ; directory = dirname(directory)) {
      const modules = join(directory, 'node_modules')
      for (const name of driverNames(modules)) {
        if (!found.has(name)) found.set(name, { name, directory: join(modules, name) })
      }
      if (dirname(directory) === directory) break
    }
  }
  return [...found.values()]
}

function driverNames(modules: string): string[] {
  const names = (directory: string): string[] => (existsSync(directory) ? readdirSync(directory) : [])
  const ours = names(join(modules, '@microvmi')).filter((name) => name === 'mock' || name.startsWith('driver-'))
  const others = names(modules).filter((name) => name.startsWith('microvmi-driver-'))
  return [...ours.map((name) => `@microvmi/${name}`), ...others]
}

/** The file that `import` of a package means (Node.js documentation, "Package entry points"). */
function entryOf(directory: string): string {
  const manifest: unknown = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'))
  const { exports, main } = manifest as { exports?: unknown; main?: unknown }
  const entry = conditional(exports) ?? (typeof main === 'string' ? main : 'index.js')
  return entry
}

/** The first path under a condition that an import has, of `exports` or of its entry `.`. */
function conditional(exports: unknown): string | undefined {
  if (typeof exports === 'string') return exports
  if (typeof exports !== 'object' || exports === null) return undefined
  for (const [condition, target] of Object.entries(exports)) {
    if (!['.', 'node', 'import', 'default'].includes(condition)) continue
    const found = conditional(target)
    if (found) return found
  }
  return undefined
}
