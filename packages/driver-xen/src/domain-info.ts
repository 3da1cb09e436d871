import type { Abi } from './abi/versions.ts'

/** What Xen tells of a domain: struct xen_domctl_getdomaininfo (domctl.h). */
export interface DomainInfo {
  readonly domid: number
  readonly uuid: string
  readonly isHvm: boolean
  readonly isPaused: boolean
  readonly isShutDown: boolean
  readonly isDying: boolean
  readonly pages: number
  /** How much memory it may have. */
  readonly mostKibibytes: number
  readonly vcpus: number
  /** An HVM guest proper has devices that Xen emulates; PVH has the local APIC at most (XEN_X86_EMU_*, xen.h). */
  readonly hasDevices: boolean
}

// Members up to `handle` are at the same place from 4.11 to 4.20.
const DOMAIN = 0
const FLAGS = 4
const TOTAL_PAGES = 8
const MAX_PAGES = 16
const MAX_VCPU = 68
const HANDLE = 76

// XEN_DOMINF_*
const DYING = 1 << 0
const HVM_GUEST = 1 << 1
const SHUTDOWN = 1 << 2
const PAUSED = 1 << 3

/** XEN_X86_EMU_PIT (arch-x86/xen.h): HVM guests have it, PVH guests do not. */
const EMULATED_PIT = 1 << 8

/** Reads one record of xc_domain_getinfolist. */
export function parseDomainInfo(bytes: Uint8Array, { domainInfo }: Abi): DomainInfo {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const flags = view.getUint32(FLAGS, true)
  const isHvm = (flags & HVM_GUEST) !== 0
  return {
    domid: view.getUint16(DOMAIN, true),
    uuid: uuidOf(bytes.subarray(HANDLE, HANDLE + 16)),
    isHvm,
    isPaused: (flags & PAUSED) !== 0,
    isShutDown: (flags & SHUTDOWN) !== 0,
    isDying: (flags & DYING) !== 0,
    pages: Number(view.getBigUint64(TOTAL_PAGES, true)),
    mostKibibytes: Number(view.getBigUint64(MAX_PAGES, true)) * 4,
    vcpus: view.getUint32(MAX_VCPU, true) + 1,
    hasDevices: isHvm && (view.getUint32(domainInfo.archConfig, true) & EMULATED_PIT) !== 0,
  }
}

function uuidOf(handle: Uint8Array): string {
  const hex = Buffer.from(handle.buffer, handle.byteOffset, handle.byteLength).toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}
