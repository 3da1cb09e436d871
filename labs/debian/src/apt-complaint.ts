/** How apt tells, in the language of LC_ALL=C, that it has no such package. */
const MISSING = [
  /Unable to locate package (\S+)/g,
  /Couldn't find any package by (?:glob|regex) '([^']+)'/g,
  /Unable to find a source package for (\S+)/g,
  /Package '?([^\s']+)'? has no installation candidate/g,
  /Version '[^']*' for '([^']+)' was not found/g,
  /Release '[^']*' for '([^']+)' was not found/g,
  /Can't select (?:candidate|versions?) .*from package '?([^\s']+)'?/g,
  // "foo : Depends: bar (>= 2) but it is not installable"
  /Depends: (\S+)(?: \([^)]*\))? but (?:it is not|\S+ is to be) install(?:able|ed)/g,
]

/** A sentence that names what is missing, from what apt said when a command on these packages failed. */
export function explain(command: string, packages: readonly string[], release: string, said: string): string {
  const found = MISSING.flatMap((pattern) => [...said.matchAll(pattern)].map(([, name = '']) => name))
  // apt-cache gives no name.
  const missing = new Set(said.includes('E: No packages found') ? packages : found)
  const reason = `${command} (${release}) failed: ${said}`
  if (missing.size === 0) return packages.length > 0 ? `${reason}\nIt was asked for ${packages.join(' ')}.` : reason
  return `needs ${missing.size === 1 ? 'the Debian package' : 'the Debian packages'} ${[...missing].join(', ')}: ${reason}`
}
