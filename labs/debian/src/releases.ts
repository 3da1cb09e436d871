import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { LabUnavailable } from './lab-unavailable.ts'

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
const HOST_SOURCES = ['/etc/apt/sources.list', '/etc/apt/sources.list.d']

/** The lines of a sources.list(5) for these releases, on a mirror; with their source packages where these are wanted. */
export function sourcesList(suites: readonly string[], mirror: string, withSources: boolean): string {
  const kinds = withSources ? ['deb', 'deb-src'] : ['deb']
  return suites
    .flatMap((suite) => kinds.map((kind) => `${kind} [signed-by=${KEYRING}] ${mirror} ${suite} main contrib\n`))
    .join('')
}

/** The mirror of Debian that this machine's own sources name. Throws `LabUnavailable`. */
export function hostMirror(places: readonly string[] = HOST_SOURCES): string {
  for (const file of places.filter((place) => existsSync(place)).flatMap(filesAt)) {
    const mirror = mirrorIn(readFileSync(file, 'utf8'))
    if (mirror) return mirror
  }
  throw new LabUnavailable('needs a Debian mirror in the apt sources of this machine: none was found')
}

/** The release that this machine runs, for example `debian bookworm` (os-release(5)). */
export function hostRelease(file = '/etc/os-release'): string {
  const text = existsSync(file) ? readFileSync(file, 'utf8') : ''
  const value = (name: string) => new RegExp(`^${name}="?([^"\n]*)`, 'm').exec(text)?.[1] ?? ''
  return `${value('ID')} ${value('VERSION_CODENAME')}`
}

/** Both formats of sources.list(5): lines, and paragraphs of fields. */
function mirrorIn(text: string): string | undefined {
  const [, found] =
    /^URIs:\s*(\S+\/debian\/?)(?:\s|$)/m.exec(text) ?? /^deb\s+(?:\[.*?\]\s+)?(\S+\/debian\/?)\s/m.exec(text) ?? []
  return found
}

function filesAt(place: string): string[] {
  if (!statSync(place).isDirectory()) return [place]
  return readdirSync(place)
    .sort()
    .map((file) => join(place, file))
}
