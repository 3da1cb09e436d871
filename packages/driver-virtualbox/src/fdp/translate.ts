import { pageFrame } from '@microvmi/core/driver'
import type { FdpClient } from './client.ts'

// Intel SDM volume 3A, section 4.5.4: levels of 9 bits each, from bit 39 (or 48) on; bit 0 is P, bit 7 PS.
const LEVEL_BITS = 9n
const PRESENT = 1n
const LARGE = 1n << 7n
/** CR4.LA57 and IA32_EFER.LMA. */
const FIVE_LEVELS = 1n << 12n
const LONG_MODE_ACTIVE = 1n << 10n
const EFER = 0xc000_0080

const entryBytes = new Uint8Array(8)
const entryView = new DataView(entryBytes.buffer)

/**
 * A virtual address of a 64-bit address space that no vCPU need be in; undefined where it is not mapped, or where the
 * guest is not in 64-bit mode. The server translates only for the address spaces that the vCPUs are in.
 */
export function translate(client: FdpClient, cr3: bigint, address: bigint): number | undefined {
  if ((client.readMsr(0, EFER) & LONG_MODE_ACTIVE) === 0n) return undefined
  const levels = (client.readRegister(0, 'cr4') & FIVE_LEVELS) === 0n ? 4n : 5n
  let table = pageFrame(cr3)
  for (let level = levels - 1n; level >= 0n; level--) {
    const shift = 12n + level * LEVEL_BITS
    const index = Number((address >> shift) & 0x1ffn)
    if (!client.readPhysical(table + index * 8, entryBytes)) return undefined
    const entry = entryView.getBigUint64(0, true)
    if ((entry & PRESENT) === 0n) return undefined
    const isLeaf = level === 0n || ((entry & LARGE) !== 0n && level <= 2n)
    if (isLeaf) {
      const size = 2 ** Number(shift)
      const frame = pageFrame(entry)
      return frame - (frame % size) + Number(address & ((1n << shift) - 1n))
    }
    table = pageFrame(entry)
  }
  return undefined
}
