import { MicrovmiError } from '@microvmi/core'
import type { Translation } from './address-space.ts'
import type { Paging } from './mode.ts'
import type { PhysicalMemory } from './physical-memory.ts'
import { addressIn, type Entry, GEOMETRY, type Geometry, PAGE_SIZE_BIT, PRESENT, USER, WRITABLE } from './tables.ts'

/** A page that a guest's tables map. */
export interface Mapping extends Translation {
  readonly virtualAddress: bigint
}

/** What to look for among the mappings. */
export interface MappingsOptions {
  /** Only pages that show this guest-physical address: the way back from a frame to its virtual addresses. */
  readonly showing?: number
  /**
   * How many tables may be read before the walk gives up with `PROTOCOL`. Default 262,144, 1 GiB of tables: hostile
   * tables that point at each other describe more pages than anyone can visit.
   */
  readonly tableLimit?: number
}

const DEFAULT_TABLE_LIMIT = 262_144

/** A table on the way down, and how far the walk has come in it. */
interface Step {
  readonly view: DataView
  readonly virtualBase: bigint
  readonly rights: number
  readonly executable: boolean
  index: number
}

/**
 * Every page that an address space maps, ascending by virtual address. Tables that are not guest memory map nothing.
 *
 * @example
 * ```ts
 * import type { Vm } from '@microvmi/core'
 * import { mappings, pagingOf } from '@microvmi/paging'
 *
 * function addressesOf(vm: Vm<'memory.read' | 'registers.read'>, physicalAddress: number): bigint[] {
 *   const found = mappings(vm, pagingOf(vm.readRegisters(0)), { showing: physicalAddress })
 *   return Array.from(found, ({ virtualAddress }) => virtualAddress)
 * }
 * ```
 */
export function* mappings(
  vm: PhysicalMemory,
  paging: Paging,
  options: MappingsOptions = {},
): Generator<Mapping, void, undefined> {
  const { showing, tableLimit = DEFAULT_TABLE_LIMIT } = options
  if (paging.mode === 'none') throw new MicrovmiError('BAD_ARGUMENT', 'without paging there are no tables to walk')
  const geometry = GEOMETRY[paging.mode]
  const entry: Entry = { low: 0, high: 0 }
  let tablesLeft = tableLimit
  const path: Step[] = []

  const descend = (address: number, virtualBase: bigint, rights: number, executable: boolean): void => {
    tablesLeft -= 1
    if (tablesLeft < 0) {
      throw new MicrovmiError('PROTOCOL', `the guest has more than ${tableLimit} page tables, or tables in a circle`)
    }
    const bytes = new Uint8Array(entriesAt(geometry, path.length) * geometry.entryBytes)
    if (!vm.memory.tryRead(address, bytes)) return
    path.push({ view: new DataView(bytes.buffer), virtualBase, rights, executable, index: 0 })
  }

  descend(paging.root, 0n, WRITABLE | USER, true)
  for (let step = path.at(-1); step; step = path.at(-1)) {
    const level = geometry.levels[path.length - 1]
    if (!level || step.index === 2 ** level.bits) {
      path.pop()
      continue
    }
    const { index } = step
    step.index += 1
    readEntry(step.view, index, geometry.entryBytes, entry)
    if ((entry.low & PRESENT) === 0) continue
    const rights = level.hasRights ? step.rights & entry.low : step.rights
    const executable = step.executable && !(level.hasRights && paging.noExecute && entry.high >>> 31 === 1)
    const virtualAddress = step.virtualBase + (BigInt(index) << BigInt(level.shift))
    const large = (entry.low & PAGE_SIZE_BIT) !== 0
    if (level.shift === 12 || (level.mayMap && paging.largePages && large)) {
      const pageSize = 2 ** level.shift
      const physicalAddress = addressIn(entry, geometry.entryBytes, level.shift)
      if (showing !== undefined && (showing < physicalAddress || showing >= physicalAddress + pageSize)) continue
      yield {
        virtualAddress: canonical(virtualAddress, geometry.virtualBits),
        physicalAddress,
        pageSize,
        writable: (rights & WRITABLE) !== 0,
        user: (rights & USER) !== 0,
        executable,
      }
    } else if (level.mayMap || !level.hasRights || !large) {
      descend(addressIn(entry, geometry.entryBytes, 12), virtualAddress, rights, executable)
    }
  }
}

function entriesAt(geometry: Geometry, depth: number): number {
  return 2 ** (geometry.levels[depth]?.bits ?? 0)
}

function readEntry(view: DataView, index: number, entryBytes: 4 | 8, entry: Entry): void {
  entry.low = view.getUint32(index * entryBytes, true)
  entry.high = entryBytes === 8 ? view.getUint32(index * 8 + 4, true) : 0
}

/** The upper half of an address space begins where the topmost translated bit is set: the bits above repeat it. */
function canonical(address: bigint, virtualBits: 32 | 48 | 57): bigint {
  return virtualBits === 32 ? address : BigInt.asUintN(64, BigInt.asIntN(virtualBits, address))
}
