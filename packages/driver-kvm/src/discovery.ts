import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { basename, resolve } from 'node:path'

/** A QEMU process and what its command line tells. */
export interface QemuProcess {
  readonly pid: number
  readonly name: string
  readonly uuid: string | undefined
  /** Unix sockets that QMP listens on, in the order of the command line. */
  readonly qmp: readonly string[]
  /** Whether QMP is there, but at an inherited descriptor or a TCP port. */
  readonly hasOtherQmp: boolean
}

/** QEMU of every distribution: qemu-system-x86_64, qemu-kvm, kvm. */
const EXECUTABLE = /^(qemu-system-|qemu-kvm$|kvm$)/

/** The QEMU processes of this host whose command lines this user may read. */
export function qemuProcesses(): QemuProcess[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .flatMap((entry) => {
      const pid = Number(entry)
      const args = commandLine(pid)
      if (!args?.[0] || !EXECUTABLE.test(basename(args[0]))) return []
      return [{ pid, ...parseCommandLine(args, pid, workingDirectory(pid)) }]
    })
}

function commandLine(pid: number): string[] | undefined {
  return ignoringEnded(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1))
}

function workingDirectory(pid: number): string {
  return ignoringEnded(() => readlinkSync(`/proc/${pid}/cwd`)) ?? '/'
}

/** A process that ended between two looks, or that this user may not look at, is none of ours. */
function ignoringEnded<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES' || code === 'EPERM') return undefined
    throw error
  }
}

/**
 * Name, UUID and QMP sockets of a QEMU command line: `-name`, `-uuid`, `-qmp`, `-qmp-pretty`, and `-chardev socket`
 * that a `-mon …,mode=control` uses (QEMU, qemu-options.hx). Options begin with one or two dashes.
 */
export function parseCommandLine(args: readonly string[], pid: number, directory: string): Omit<QemuProcess, 'pid'> {
  let name: string | undefined
  let uuid: string | undefined
  let hasOtherQmp = false
  const qmp: string[] = []
  const chardevs = new Map<string, string | undefined>()
  const monitors: string[] = []
  for (const [index, argument] of args.entries()) {
    const value = args[index + 1]
    if (!argument.startsWith('-') || value === undefined) continue
    const option = argument.replace(/^--?/, '')
    const { first, values } = parseOption(value)
    if (option === 'name') name = values.get('guest') ?? first
    else if (option === 'uuid') uuid = value
    else if (option === 'qmp' || option === 'qmp-pretty') {
      if (first?.startsWith('unix:')) qmp.push(resolve(directory, first.slice('unix:'.length)))
      else if (first !== undefined && first !== 'none') hasOtherQmp = true
    } else if (option === 'chardev' && first === 'socket') {
      chardevs.set(values.get('id') ?? '', values.get('path'))
    } else if (option === 'mon' && values.get('mode') === 'control') {
      monitors.push(values.get('chardev') ?? first ?? '')
    }
  }
  for (const chardev of monitors) {
    const path = chardevs.get(chardev)
    if (path === undefined) hasOtherQmp = true
    else qmp.push(resolve(directory, path))
  }
  return { name: name ?? String(pid), uuid, qmp, hasOtherQmp }
}

/** `first,key=value,…`, a comma in a value doubled (QEMU, util/qemu-option.c, get_opt_value). */
function parseOption(text: string): { first: string | undefined; values: Map<string, string> } {
  const parts = text.replaceAll(',,', '\0').split(',')
  const values = new Map<string, string>()
  let first: string | undefined
  for (const [index, part] of parts.entries()) {
    const plain = part.replaceAll('\0', ',')
    const equals = plain.indexOf('=')
    if (index === 0 && (equals < 0 || plain.startsWith('unix:'))) first = plain
    else values.set(plain.slice(0, Math.max(equals, 0)), plain.slice(equals + 1))
  }
  return { first, values }
}
