import { AddressSpace, pagingOf, physicalMemoryOf } from '@microvmi/paging'
import type { FdpClient } from './client.ts'

/** IA32_EFER and its bit LMA (Intel SDM volume 4, table 2-2). */
const EFER = 0xc000_0080
const LONG_MODE_ACTIVE = 1n << 10n

/**
 * A virtual address of a 64-bit address space that no vCPU need be in; undefined where it is not mapped, or where the
 * guest is not in 64-bit mode. The server translates only for the address spaces that the vCPUs are in.
 */
export function translate(client: FdpClient, cr3: bigint, address: bigint): number | undefined {
  const efer = client.readMsr(0, EFER)
  if ((efer & LONG_MODE_ACTIVE) === 0n) return undefined
  const paging = pagingOf({ cr0: client.readRegister(0, 'cr0'), cr3, cr4: client.readRegister(0, 'cr4'), efer })
  const physical = physicalMemoryOf((at, into) => client.readPhysical(at, into))
  return new AddressSpace(physical, paging).translate(address)?.physicalAddress
}
