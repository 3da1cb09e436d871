import { readdirSync } from 'node:fs'
import { win32 } from 'node:path'
import { MicrovmiError } from '@microvmi/core/driver'
import { libraryPath, type Places } from '../library-path.ts'

const NAME = 'VmSavedStateDumpProvider.dll'

/** The names in a directory; none where there is no such. */
export type NamesIn = (directory: string) => readonly string[]

/**
 * Where VmSavedStateDumpProvider.dll lies: at the path given, beside the app, in PATH, or in the newest Windows SDK.
 * Throws `DRIVER_UNAVAILABLE` where it is nowhere.
 */
export function providerPath(given: string | undefined, at: Places, namesIn: NamesIn = namesInDirectory): string {
  const path = libraryPath(NAME, given, at) ?? sdkPaths(at, namesIn).find(at.isFile)
  if (path !== undefined) return path
  throw new MicrovmiError(
    'DRIVER_UNAVAILABLE',
    `${NAME} was not found: install the Windows SDK (10.0.18362 or newer), put the library beside the app, or give ` +
      'its path as the option provider',
  )
}

/** The SDK has a directory for each of its versions: `C:\Program Files (x86)\Windows Kits\10\bin\10.0.22621.0\x64`. */
function sdkPaths({ environment }: Places, namesIn: NamesIn): string[] {
  const roots = [environment['ProgramFiles(x86)'] ?? environment['PROGRAMFILES(X86)'], environment.ProgramFiles]
  return roots
    .filter((root) => root !== undefined)
    .flatMap((root) => {
      const binaries = win32.join(root, 'Windows Kits', '10', 'bin')
      const versions = namesIn(binaries).filter((name) => /^10(\.\d{1,9}){3}$/.test(name))
      return versions.sort(newestFirst).map((version) => win32.join(binaries, version, 'x64', NAME))
    })
}

function newestFirst(one: string, other: string): number {
  const parts = (version: string) => version.split('.').map(Number)
  const others = parts(other)
  return parts(one).reduce((order, part, index) => order || (others[index] ?? 0) - part, 0)
}

function namesInDirectory(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch {
    // No SDK there, or none that this user may see: the same to us.
    return []
  }
}
