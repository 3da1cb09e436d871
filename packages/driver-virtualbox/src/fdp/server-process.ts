import { readdirSync, readFileSync, statSync } from 'node:fs'
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
  const files = [join(directory, name), join(directory, `${CONTEXT_PREFIX}${name}`)].map(identityOf)
  let certain = true
  let found: ServerProcess | undefined
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    const maps = readOf(Number(entry), 'maps')
    // Nobody may look at init in some sandboxes, and VirtualBox it is not.
    if (maps === 'refused' && entry !== '1') certain = false
    if (maps === 'refused' || maps === 'ended') continue
    const mapped = mappedFiles(maps)
    if (!files.every((file) => file !== undefined && mapped.has(file))) continue
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
 * The files in a `/proc/PID/maps` (man 5 proc_pid_maps) as `major:minor:inode`: the fourth and fifth column, the device
 * in hexadecimal. Their paths say less: a container has others, and a file may have been removed and made again.
 */
export function mappedFiles(maps: string): Set<string> {
  const files = new Set<string>()
  for (const [, major = '', minor = '', inode] of maps.matchAll(
    /^\S+ \S+ \S+ ([\da-f]+):([\da-f]+) ([1-9]\d*)(?: |$)/gm,
  )) {
    files.add(`${Number.parseInt(major, 16)}:${Number.parseInt(minor, 16)}:${inode}`)
  }
  return files
}

/** The same of a file; undefined where there is none. */
function identityOf(path: string): string | undefined {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false })
  if (!stat) return undefined
  // bits/sysmacros.h: how Linux keeps the two numbers of a device in one.
  const major = ((stat.dev >> 8n) & 0xfffn) | ((stat.dev >> 32n) & 0xffff_f000n)
  const minor = (stat.dev & 0xffn) | ((stat.dev >> 12n) & 0xffff_ff00n)
  return `${major}:${minor}:${stat.ino}`
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
