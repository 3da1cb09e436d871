const MAGIC = '070701'
const TYPES = { directory: 0o040755, file: 0o100644, executable: 0o100755, link: 0o120777, console: 0o020600 }

/** What an archive holds at a path. Directories come before what is in them. */
export interface CpioEntry {
  readonly path: string
  readonly type: keyof typeof TYPES
  /** A file's content, or where a link points. */
  readonly data?: Uint8Array | string
}

/** The device /dev/console (Linux, Documentation/admin-guide/devices.txt). */
const CONSOLE_DEVICE = [5, 1] as const

/**
 * An archive in cpio's "newc" format, as the kernel unpacks it (Linux,
 * Documentation/driver-api/early-userspace/buffer-format.rst).
 */
export function cpio(entries: readonly CpioEntry[]): Buffer {
  const parts = entries.flatMap((entry, index) => partsOf(entry, index + 1))
  return Buffer.concat([...parts, ...partsOf({ path: 'TRAILER!!!', type: 'file' }, 0)])
}

/** The directories above these paths, each once, before those in it. */
export function directoriesOf(paths: readonly string[]): CpioEntry[] {
  const found = new Set<string>()
  for (const path of paths) {
    const names = path.split('/').slice(0, -1)
    for (let depth = 1; depth <= names.length; depth++) found.add(names.slice(0, depth).join('/'))
  }
  return [...found].map((path) => ({ path, type: 'directory' }))
}

function partsOf({ path, type, data = '' }: CpioEntry, inode: number): Uint8Array[] {
  const content = typeof data === 'string' ? Buffer.from(data) : data
  const name = Buffer.from(`${path}\0`)
  const [major, minor] = type === 'console' ? CONSOLE_DEVICE : [0, 0]
  const fields = [inode, TYPES[type], 0, 0, 1, 0, content.length, 0, 0, major, minor, name.length, 0]
  const header = Buffer.from(MAGIC + fields.map((field) => field.toString(16).padStart(8, '0')).join(''))
  // The name and the content each end at a multiple of four bytes.
  return [header, name, padding(header.length + name.length), content, padding(content.length)]
}

function padding(length: number): Uint8Array {
  return new Uint8Array(-length & 3)
}
