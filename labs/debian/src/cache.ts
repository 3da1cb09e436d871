import { mkdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

/** Where the labs keep what they fetch and build, outside the checkout: `$MICROVMI_CACHE`, else the user's cache. */
export function cacheDirectory(): string {
  const { MICROVMI_CACHE, XDG_CACHE_HOME } = process.env
  const directory = MICROVMI_CACHE || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'microvmi')
  mkdirSync(directory, { recursive: true })
  return directory
}
