import { MicrovmiError, PAGE_SIZE } from '@microvmi/core/driver'
import { ALL_RIGHTS, accessOf, type PageRightsOf, RIGHT } from '@microvmi/page-rights'
import type { GuestMemory } from './guest-memory.ts'
import type { XenViews } from './views.ts'
import type { Xen } from './xen.ts'
import { ERRNO, failed } from './xen-errors.ts'

/** Pages that one call tells of. */
const BATCH = 4096

/** Whether Xen has rights of this domain's pages: on Intel's processors alone. */
export function hasPageAccess(xen: Xen, domid: number): boolean {
  if (xen.libraries.xc.get_mem_access(xen.handle, domid, 0, new Uint32Array(1)) >= 0) return true
  // mem_access_memop() (Xen, common/mem_access.c): EINVAL where there are none, and ENODEV while nobody monitors.
  return (failed('xc_get_mem_access', '').cause as { errno: number }).errno !== ERRNO.EINVAL
}

/**
 * Rights of a domain's pages (XENMEM_access_*, memory.h: the same bits as everywhere). Where the domain can have views,
 * they are set in the one that stands for the guest's own: then a vCPU can step over an access in a view without them,
 * and the others stay guarded.
 */
export function pageAccess(xen: Xen, domid: number, memory: GuestMemory, views: XenViews): PageRightsOf {
  return {
    firstMissing: (address, length) => {
      const start = address - (address % PAGE_SIZE)
      const end = Math.ceil((address + length) / PAGE_SIZE) * PAGE_SIZE
      const there = memory.present(start, end - start)
      return there === end - start ? undefined : Math.max(address, start + there)
    },
    set(view, frames, rights) {
      const impossible = rights.findIndex((one) => (one & RIGHT.w) !== 0 && (one & RIGHT.r) === 0)
      if (impossible >= 0) {
        const wanted = accessOf(rights[impossible] ?? 0)
        throw new MicrovmiError(
          'UNSUPPORTED',
          `EPT has no pages that may be written and not read: '${wanted}' cannot be set`,
        )
      }
      if (views.canBeOn) {
        // Without views every page has all rights.
        if (!views.isOn && rights.every((one) => one === ALL_RIGHTS)) return
        views.enable()
      }
      for (let first = 0; first < frames.length; first += BATCH) {
        setRights(xen, domid, views, view, frames.slice(first, first + BATCH), rights.slice(first, first + BATCH))
      }
    },
  }
}

function setRights(
  xen: Xen,
  domid: number,
  views: XenViews,
  view: number,
  frames: readonly number[],
  rights: readonly number[],
): void {
  const { xc } = xen.libraries
  const { handle } = xen
  const numbers = BigUint64Array.from(frames, BigInt)
  const access = Uint8Array.from(rights)
  const count = frames.length
  const status = views.isOn
    ? xc.altp2m_set_mem_access_multi(handle, domid, views.numberOf(view), access, numbers, count)
    : xc.set_mem_access_multi(handle, domid, access, numbers, count)
  if (status >= 0) return
  const call = views.isOn ? 'xc_altp2m_set_mem_access_multi' : 'xc_set_mem_access_multi'
  throw failed(call, `the rights of ${count} pages from frame 0x${frames[0]?.toString(16)} on`)
}
