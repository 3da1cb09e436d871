const MAGIC = '070701'
const DIRECTORY = 0o040755
const EXECUTABLE = 0o100755
const CONSOLE = 0o020600

/**
 * An initramfs with one program as init and the console device that it needs, in cpio's "newc" format
 * (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
 */
export function initramfs(init: Uint8Array): Buffer {
  return Buffer.concat([
    entry(1, 'dev', DIRECTORY),
    entry(2, 'dev/console', CONSOLE, Buffer.alloc(0), [5, 1]),
    entry(3, 'init', EXECUTABLE, init),
    entry(0, 'TRAILER!!!', 0),
  ])
}

function entry(
  inode: number,
  name: string,
  mode: number,
  data: Uint8Array = Buffer.alloc(0),
  device: readonly [number, number] = [0, 0],
): Buffer {
  const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, device[0], device[1], name.length + 1, 0]
  const header = MAGIC + fields.map((field) => field.toString(16).padStart(8, '0')).join('')
  return Buffer.concat([padded(Buffer.from(`${header}${name}\0`)), padded(data)])
}

function padded(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)])
}
