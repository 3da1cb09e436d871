import { MicrovmiError } from '@microvmi/core/driver'

/**
 * The host address in the answer to the human monitor's `gpa2hva` (QEMU, monitor/misc.c, hmp_gpa2hva):
 *
 *     Host virtual address for 0x0 (ram) is 0x7f56affff000
 */
export function parseHostAddress(text: string): number {
  const match = /^Host virtual address for 0x[0-9a-f]+ \(.*\) is (0x[0-9a-f]{1,16})\s*$/.exec(text)
  const address = Number(match?.[1])
  if (Number.isSafeInteger(address) && address > 0) return address
  throw new MicrovmiError('PROTOCOL', `QEMU tells no host address: ${text.trim().slice(0, 120)}`)
}

/** A mapping in a process, of `/proc/PID/maps` (proc(5)). */
export interface HostMapping {
  readonly start: number
  readonly end: number
  readonly shared: boolean
  readonly offset: number
  readonly device: string
  readonly inode: number
  readonly path: string
}

/** Reads `/proc/PID/maps`. */
export function parseMaps(text: string): HostMapping[] {
  const line = /^([0-9a-f]+)-([0-9a-f]+) [r-][w-][x-]([sp]) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+)(?: +(.*))?$/gm
  return [...text.matchAll(line)].map(
    ([, start = '', end = '', sharing, offset = '', device = '', inode, path = '']) => ({
      start: Number.parseInt(start, 16),
      end: Number.parseInt(end, 16),
      shared: sharing === 's',
      offset: Number.parseInt(offset, 16),
      device,
      inode: Number(inode),
      path,
    }),
  )
}
