import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { once } from '@microvmi/lab-debian'
import { loaderOf } from '@microvmi/lab-inside'

const run = promisify(execFile)

/** Linux, Documentation/arch/x86/boot.rst, the real-mode header: setup_sects, magic, payload_offset, payload_length. */
const HEADER = { setupSectors: 0x1f1, magic: 0x202, payloadOffset: 0x248, payloadLength: 0x24c } as const
const SECTOR = 512

/** Where a kernel's compressed image is in its file. */
export function payloadOf(kernel: Buffer): { readonly start: number; readonly length: number } {
  if (kernel.length < 0x250 || kernel.toString('latin1', HEADER.magic, HEADER.magic + 4) !== 'HdrS') {
    throw new Error('this is no bzImage of Linux')
  }
  const setup = ((kernel[HEADER.setupSectors] ?? 0) + 1) * SECTOR
  const start = setup + kernel.readUInt32LE(HEADER.payloadOffset)
  const length = kernel.readUInt32LE(HEADER.payloadLength)
  if (length < 4 || start + length > kernel.length) throw new Error('the payload of this bzImage is not in it')
  return { start, length }
}

/**
 * Debian's kernel with its image packed by LZ4 and not by XZ: Xen and its toolstack unpack that in a fraction of the
 * time, and in emulation it is most of what a boot takes. Neither executes the part of the file that would unpack it.
 */
export async function repackedKernel(root: string, file: string): Promise<string> {
  const hash = createHash('sha256').update(`${basename(root)} ${file}`)
  const directory = await once(`xen-lab/kernel-${hash.digest('hex').slice(0, 16)}`, async (made) => {
    const kernel = readFileSync(file)
    const { start, length } = payloadOf(kernel)
    const path = (name: string) => join(made, name)
    // The image's length stands behind the XZ stream.
    writeFileSync(path('image.xz'), kernel.subarray(start, start + length - 4))
    await tool(root, 'xz', '--decompress', path('image.xz'))
    await tool(root, 'lz4', '-l', '-9', '-q', path('image'), path('image.lz4'))
    const image = readFileSync(path('image'))
    const size = Buffer.alloc(4)
    size.writeUInt32LE(image.length)
    const head = Buffer.from(kernel.subarray(0, start))
    const payload = Buffer.concat([readFileSync(path('image.lz4')), size])
    head.writeUInt32LE(payload.length, HEADER.payloadLength)
    writeFileSync(path('vmlinuz'), Buffer.concat([head, payload]))
    for (const name of ['image', 'image.lz4']) rmSync(path(name))
  })
  return join(directory, 'vmlinuz')
}

/** Runs a program of the packages with their own libraries. */
async function tool(root: string, name: string, ...words: string[]): Promise<void> {
  const libraries = ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu'].map((path) => join(root, path)).join(':')
  await run(loaderOf(root), ['--library-path', libraries, join(root, 'usr/bin', name), ...words])
}
