import { type MemoryLayout, MicrovmiError } from '@microvmi/core/driver'

const PAGE = 4096

/** A memory block of a partition. */
export interface MemoryBlock {
  readonly handle: number
  /** Pages that it has, there or not. */
  readonly pages: number
  /** Pages that are there: less where the host has taken some back (dynamic memory). */
  readonly valid: number
}

/** The least RAM of a VM, 32 MiB: smaller blocks hold video memory and firmware (Set-VMMemory, MinimumBytes). */
const LEAST_RAM = 32 * 2 ** 20

/** Where the gap for devices below 4 GiB begins, unless Set-VM -LowMemoryMappedIoSpace makes it greater: 128 MiB. */
const DEVICE_GAP = 0xf800_0000

/**
 * The block that is the guest's RAM: its page n is guest page n. Throws `UNSUPPORTED` where that cannot be known: RAM of
 * several blocks, or beyond the devices' gap, lies where vid.dll does not tell.
 */
export function ramBlock(blocks: readonly MemoryBlock[]): MemoryBlock {
  const [ram, second] = blocks.filter(({ pages }) => pages * PAGE >= LEAST_RAM)
  if (ram === undefined) {
    throw new MicrovmiError('UNSUPPORTED', 'vid.dll shows no RAM of this partition on this Windows: use hvlib.dll')
  }
  if (second === undefined && ram.pages * PAGE <= DEVICE_GAP) return ram
  throw new MicrovmiError(
    'UNSUPPORTED',
    'the RAM of this VM is in several blocks, or goes beyond the gap for devices below 4 GiB: vid.dll does not tell ' +
      'where it lies then. Use hvlib.dll, or give the VM less than 3.8 GiB',
  )
}

/** Where a VM's memory is, when its RAM is one block. */
export function layoutOf({ pages, valid }: MemoryBlock): MemoryLayout | string {
  if (valid === pages) return { generation: 0, ranges: [{ start: 0, length: pages * PAGE, kind: 'ram' }] }
  return (
    'the host has taken memory back from this VM, and vid.dll does not tell which pages: turn dynamic memory off ' +
    '(Set-VMMemory -DynamicMemoryEnabled $false)'
  )
}

/** A page count as the library tells it. Throws `PROTOCOL` for one beyond 52 bits of address. */
export function pageCount(pages: bigint): number {
  if (pages < 2n ** 40n) return Number(pages)
  throw new MicrovmiError('PROTOCOL', `a memory block claims to have ${pages} pages: more than a guest can address`)
}
