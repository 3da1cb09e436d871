import { existsSync } from 'node:fs'
import { posix, win32 } from 'node:path'
import { MicrovmiError } from '@microvmi/core/driver'

/** What the places depend on: `process`, or a test's idea of one. */
export interface Host {
  readonly platform: string
  readonly env: Readonly<Record<string, string | undefined>>
}

/** Where VirtualBox's installers and the distributions put it. */
const PLACES: Readonly<Record<string, readonly string[]>> = {
  darwin: ['/Applications/VirtualBox.app/Contents/MacOS', '/usr/local/bin', '/opt/homebrew/bin'],
  // Debian's and Oracle's packages, Oracle's installer, FreeBSD's ports.
  posix: ['/usr/bin', '/usr/lib/virtualbox', '/opt/VirtualBox', '/usr/local/bin'],
}

/**
 * The paths at which VBoxManage may be, in the order in which they are tried: what VirtualBox's installer says, the
 * search path, the usual places. Directories of the search path that are relative are left out: a program of that name
 * in the working directory is not the user's.
 */
export function vboxmanagePlaces({ platform, env }: Host): string[] {
  const isWindows = platform === 'win32'
  const { isAbsolute, join, delimiter } = isWindows ? win32 : posix
  const value = (name: string) => {
    // Names of variables have no case on Windows, but in a copy of its environment they have.
    const found = Object.keys(env).find((key) => (isWindows ? key.toUpperCase() === name.toUpperCase() : key === name))
    return found === undefined ? undefined : env[found]
  }
  const usual = isWindows
    ? ['ProgramW6432', 'ProgramFiles'].map((name) => value(name)).map((path) => path && `${path}\\Oracle\\VirtualBox`)
    : (PLACES[platform] ?? PLACES.posix ?? [])
  const directories = [
    ...['VBOX_MSI_INSTALL_PATH', 'VBOX_INSTALL_PATH'].map(value),
    // On Windows a directory may be in quotes.
    ...(value('PATH') ?? '').split(delimiter).map((path) => (isWindows ? path.replaceAll('"', '') : path)),
    ...usual,
    ...(isWindows ? ['C:\\Program Files\\Oracle\\VirtualBox'] : []),
  ]
  const program = isWindows ? 'VBoxManage.exe' : 'VBoxManage'
  const places = directories.flatMap((path) => (path !== undefined && isAbsolute(path) ? [join(path, program)] : []))
  return [...new Set(places)]
}

/** VBoxManage's path: the option, or the first place where it is. Throws `DRIVER_UNAVAILABLE`. */
export function findVBoxManage(option: string | undefined, host: Host = process): string {
  if (option !== undefined) return option
  const found = vboxmanagePlaces(host).find((path) => existsSync(path))
  if (found !== undefined) return found
  throw new MicrovmiError(
    'DRIVER_UNAVAILABLE',
    'VBoxManage was not found: install VirtualBox, or give its path as the option vboxmanage',
  )
}
