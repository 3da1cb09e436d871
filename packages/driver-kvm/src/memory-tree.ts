import { ADDRESS_LIMIT, type MemoryRange, MicrovmiError } from '@microvmi/core/driver'

/** A range of the guest's memory and the RAM block of QEMU's that backs it. */
export interface BackedRange extends MemoryRange {
  /** QEMU's name of the block. */
  readonly block: string
  /** Where in the block the range begins. */
  readonly blockOffset: number
}

/** A guest has some tens of ranges; more than this is no memory map. */
const RANGE_LIMIT = 65_536

/**
 * The ranges of guest memory in the text of the human monitor's `info mtree -f`: the RAM and ROM lines of the flat view
 * that the address space "memory" has (QEMU, softmmu/memory.c, mtree_print_flatview):
 *
 *     0000000100000000-00000001bfffffff (prio 0, ram): ram @0000000080000000 KVM
 *
 * The view is flat: ranges are disjoint and ascending, what overlays what is settled. Throws `PROTOCOL` for text that
 * has no such view or says what cannot be.
 */
export function parseMemoryTree(text: string): BackedRange[] {
  const view = text.split(/^FlatView #\d+\r?$/m).find((part) => /^ AS "memory",/m.test(part))
  if (view === undefined) throw unreadable('it has no flat view of the address space "memory"')
  const ranges: BackedRange[] = []
  let end = 0
  for (const match of view.matchAll(/^ {2}([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (ram|rom)\): (.*?)\r?$/gm)) {
    const [, first = '', last = '', kind, backing = ''] = match
    const start = Number.parseInt(first, 16)
    const length = Number.parseInt(last, 16) - start + 1
    if (start < end || length <= 0 || start + length > ADDRESS_LIMIT) {
      throw unreadable(`the range ${first}-${last} cannot be there`)
    }
    if (ranges.length === RANGE_LIMIT) throw unreadable(`it has over ${RANGE_LIMIT} ranges`)
    end = start + length
    const { block, blockOffset } = parseBacking(backing)
    ranges.push({ start, length, kind: kind === 'rom' ? 'rom' : 'ram', block, blockOffset })
  }
  if (ranges.length === 0) throw unreadable('it has no RAM')
  return ranges
}

/** `ram`, `ram @0000000080000000`, `pc.bios KVM`, `/objects/ram @… KVM`. */
function parseBacking(text: string): { block: string; blockOffset: number } {
  const match = /^(.*?)(?: @([0-9a-f]{16}))?(?: KVM)?$/.exec(text)
  const blockOffset = Number.parseInt(match?.[2] ?? '0', 16)
  if (!Number.isSafeInteger(blockOffset)) throw unreadable(`'${text}' is no RAM block`)
  return { block: match?.[1] ?? text, blockOffset }
}

function unreadable(why: string): MicrovmiError {
  return new MicrovmiError(
    'PROTOCOL',
    `QEMU's memory map cannot be read: ${why}. Is it a version of QEMU newer than 11?`,
  )
}
