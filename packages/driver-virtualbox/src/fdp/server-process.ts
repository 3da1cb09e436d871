import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { CONTEXT_PREFIX } from './layout.ts'

/** A process, told from a later one of the same number by when it was started. */
export interface ServerProcess {
  readonly pid: number
  /** In clock ticks since the host's start. */
  readonly started: number
}

/** What looking for the process behind a channel found. */
export type ServerSearch =
  | { readonly found: ServerProcess }
  /** `certain`: every process could be looked at, and none has the channel open. */
  | { readonly found: undefined; readonly certain: boolean }

/**
 * The process that serves a channel: of those that map both of its objects the oldest, for the server makes them and
 * clients come later. Nothing in the channel itself tells whether its server lives.
 */
export function findServer(directory: string, name: string): ServerSearch {
  const files = [join(directory, name), join(directory, `${CONTEXT_PREFIX}${name}`)]
  let certain = true
  let found: ServerProcess | undefined
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    const maps = readOf(Number(entry), 'maps')
    // Nobody may look at init in some sandboxes, and VirtualBox it is not.
    if (maps === 'refused' && entry !== '1') certain = false
    if (maps === 'refused' || maps === 'ended') continue
    const paths = pathsIn(maps)
    if (!files.every((file) => paths.has(file))) continue
    const started = startOf(Number(entry))
    if (started !== undefined && (!found || started < found.started)) found = { pid: Number(entry), started }
  }
  return found ? { found } : { found, certain }
}

/** Whether the process still runs. */
export function isAlive({ pid, started }: ServerProcess): boolean {
  return startOf(pid) === started
}

/**
 * The files in a `/proc/PID/maps` (man 5 proc_pid_maps): the sixth column, to the end of the line, a newline in it
 * written `\012`. A file that was removed meanwhile is no channel any more: ` (deleted)` stays part of its name.
 */
export function pathsIn(maps: string): Set<string> {
  const paths = new Set<string>()
  for (const line of maps.split('\n')) {
    const [, path] = /^(?:\S+\s+){5}(\/.*)$/.exec(line) ?? []
    if (path !== undefined) paths.add(path.replaceAll('\\012', '\n'))
  }
  return paths
}

/** When a process was started; undefined when it has ended, also when nobody has waited for it yet. */
function startOf(pid: number): number | undefined {
  const stat = readOf(pid, 'stat')
  if (stat === 'refused' || stat === 'ended') return undefined
  // man 5 proc_pid_stat: the name in parentheses may hold anything; behind it the state, and as the 22nd the start.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const [state] = fields
  if (state === 'Z' || state === 'X') return undefined
  const started = Number(fields[19])
  return Number.isSafeInteger(started) ? started : undefined
}

function readOf(pid: number, file: 'maps' | 'stat'): string | 'refused' | 'ended' {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH') return 'ended'
    if (code === 'EACCES' || code === 'EPERM') return 'refused'
    throw error
  }
}
