import { closeSync, constants, fstatSync, openSync, readdirSync, statSync } from 'node:fs'
import type { HostMapping } from './host-address.ts'
import { type SharedFile, WINDOW } from './memory-map.ts'
import { discard, mapFile } from './native.ts'

/**
 * Opens the file behind a mapping of QEMU's: at its path, or, where it has none (a memfd) or another file took its
 * place, through QEMU's own descriptor in /proc. `undefined` where this user may not.
 */
export function openRamFile(pid: number, mapping: HostMapping): SharedFile | undefined {
  const candidates = [mapping.path.replace(/ \(deleted\)$/, ''), ...descriptorsOf(pid)]
  for (const writable of [true, false]) {
    for (const path of candidates) {
      const file = open(path, mapping.inode, writable)
      if (file) return file
    }
  }
  return undefined
}

/** Opens the RAM file at a path that QEMU told, where its mappings may not be looked at. */
export function openRamFileAt(path: string): SharedFile | undefined {
  return open(path, undefined, true) ?? open(path, undefined, false)
}

export function closeRamFile(file: SharedFile): void {
  for (const window of file.windows) discard(window)
  closeSync(file.fd)
}

function descriptorsOf(pid: number): string[] {
  return denied(() => readdirSync(`/proc/${pid}/fd`).map((fd) => `/proc/${pid}/fd/${fd}`)) ?? []
}

function open(path: string, inode: number | undefined, writable: boolean): SharedFile | undefined {
  if (!path.startsWith('/')) return undefined
  // Opening a FIFO or a device would have effects: look first, and open what was looked at.
  const status = denied(() => statSync(path))
  if (!status?.isFile() || (inode !== undefined && status.ino !== inode)) return undefined
  const fd = denied(() => openSync(path, writable ? constants.O_RDWR : constants.O_RDONLY))
  if (fd === undefined) return undefined
  try {
    const { size, ino } = fstatSync(fd)
    if (ino !== status.ino || size === 0) throw new Error(`${path} changed while it was opened`)
    return { fd, size, writable, windows: mapWindows(fd, size, writable) }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

function mapWindows(fd: number, size: number, writable: boolean) {
  const windows = []
  for (let offset = 0; offset < size; offset += WINDOW) {
    windows.push(mapFile(fd, offset, Math.min(WINDOW, size - offset), writable))
  }
  return windows
}

/** `undefined` for what is not there or not allowed. */
function denied<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'EACCES' || code === 'EPERM' || code === 'ENXIO' || code === 'EROFS')
      return undefined
    throw error
  }
}
