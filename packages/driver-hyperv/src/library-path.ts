import { statSync } from 'node:fs'
import { win32 } from 'node:path'
import { MicrovmiError } from '@microvmi/core/driver'

/** Where this process and Windows look for libraries. */
export interface Places {
  readonly environment: Readonly<Record<string, string | undefined>>
  /** The program and the script that run: a library may lie beside them. */
  readonly programs: readonly (string | undefined)[]
  readonly isFile: (path: string) => boolean
}

/** This process's own. */
export function places(): Places {
  return { environment: process.env, programs: [process.argv[1], process.execPath], isFile }
}

/**
 * Where a library lies: at the path given (a file, or its directory), or else beside the app, or in PATH. Never in the
 * current directory: who may write there must not run code as administrator. `undefined` when it is nowhere.
 */
export function libraryPath(name: string, given: string | undefined, at: Places): string | undefined {
  if (given !== undefined) {
    const path = win32.resolve(given)
    const file = [win32.join(path, name), path].find(at.isFile)
    if (file !== undefined) return file
    throw new MicrovmiError('DRIVER_UNAVAILABLE', `there is no ${name} at ${path}: check the path`)
  }
  return directories(at)
    .map((directory) => win32.join(directory, name))
    .find(at.isFile)
}

/** Of Windows' own library: where Windows has it, else where any other may be. */
export function systemLibraryPath(name: string, given: string | undefined, at: Places): string | undefined {
  const root = at.environment.SystemRoot ?? at.environment.SYSTEMROOT
  const own = root === undefined ? undefined : win32.join(root, 'System32', name)
  if (given === undefined && own !== undefined && at.isFile(own)) return own
  return libraryPath(name, given, at)
}

function directories({ environment, programs }: Places): string[] {
  const beside = programs.flatMap((program) => (program === undefined ? [] : [win32.dirname(program)]))
  const path = (environment.PATH ?? environment.Path ?? '').split(';')
  return [...beside, ...path.map((entry) => entry.replace(/^"(.*)"$/, '$1'))].filter(win32.isAbsolute)
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false
}
