import { closeSync, constants, existsSync, fstatSync, openSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { MicrovmiError } from '@microvmi/core/driver'
import { CHANNEL, CONTEXT_LENGTH, CONTEXT_PREFIX } from './layout.ts'

/** The descriptor of a VM's channel, whose size was checked: it can be mapped. */
export function openChannelFile(directory: string, name: string): number {
  // A name that no file can have is the name of no channel.
  if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name)) throw notFound(name)
  const path = join(directory, name)
  const fd = openAsUser(path, name)
  const stat = fstatSync(fd)
  if (stat.isFile() && stat.size === CHANNEL.length) return fd
  closeSync(fd)
  throw new MicrovmiError('PROTOCOL', `${path} has ${stat.size} bytes: an FDP channel has ${CHANNEL.length}`)
}

/** The names of the channels that are there, of VMs that run and of some that have ended. */
export function channelNames(directory: string): string[] {
  const names = new Set(existsSync(directory) ? readdirSync(directory) : [])
  const hasSize = (name: string, size: number): boolean =>
    statSync(join(directory, name), { throwIfNoEntry: false })?.size === size
  return [...names].filter((name) => {
    const context = `${CONTEXT_PREFIX}${name}`
    return names.has(context) && hasSize(name, CHANNEL.length) && hasSize(context, CONTEXT_LENGTH)
  })
}

function openAsUser(path: string, name: string): number {
  try {
    return openSync(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EACCES' || code === 'EPERM') {
      throw new MicrovmiError('DENIED', `no right to open ${path}: run as the user whose VM it is, or as root`, {
        cause: error,
      })
    }
    if (['ENOENT', 'ENAMETOOLONG', 'ELOOP', 'EISDIR', 'ENXIO'].includes(code ?? '')) throw notFound(name)
    throw new MicrovmiError('HYPERVISOR', `${path} cannot be opened`, { cause: error })
  }
}

function notFound(name: string): MicrovmiError {
  const shown = name.length > 100 ? `${name.slice(0, 100)}…` : name
  return new MicrovmiError('VM_NOT_FOUND', `no FDP channel of a VM '${shown}': is it running, in a patched VirtualBox?`)
}
