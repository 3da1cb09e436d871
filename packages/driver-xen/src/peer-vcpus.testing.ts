import type { PeerDomain } from './peer-domain.testing.ts'

/** A whole saved context: of each vCPU a descriptor and its record. */
export function saveAll({ vcpus }: PeerDomain, into: Uint8Array | null): number {
  const length = vcpus.length * (8 + 1032)
  if (!into) return length
  const view = new DataView(into.buffer, into.byteOffset, into.byteLength)
  for (const [index, { context }] of vcpus.entries()) {
    const at = index * (8 + 1032)
    view.setUint16(at, 2, true)
    view.setUint16(at + 2, index, true)
    view.setUint32(at + 4, context.length, true)
    into.set(context, at + 8)
  }
  return length
}

export function loadAll({ vcpus }: PeerDomain, from: Uint8Array): number {
  for (const [index, { context }] of vcpus.entries()) {
    const at = index * (8 + 1032) + 8
    context.set(from.subarray(at, at + 1032))
  }
  return 0
}

/** Where struct vcpu_guest_context (arch-x86/xen.h) and struct hvm_hw_cpu (hvm/save.h) have the same registers. */
const USER = [
  ...([
    [520, 632],
    [528, 624],
    [536, 616],
    [544, 608],
    [552, 544],
    [560, 520],
    [568, 600],
    [576, 592],
    [584, 584],
  ] as const),
  ...([
    [592, 576],
    [600, 512],
    [608, 528],
    [616, 536],
    [624, 552],
    [632, 560],
    [648, 640],
    [664, 648],
    [672, 568],
  ] as const),
] as const

/** What of ctrlreg Xen tells of a PV guest, the same way; and where the flags are. */
const CONTROL = [
  [4984, 656],
  [5000, 664],
  [5008, 672],
  [5016, 680],
] as const
const FLAGS = 512
const IN_KERNEL = 1 << 2

export function copyUser({ vcpus, pv }: PeerDomain, vcpu: number, other: Uint8Array, isWrite: boolean): number {
  const context = vcpus[vcpu]?.context
  if (!context) return -1
  for (const [user, saved] of USER) {
    if (isWrite) context.set(other.subarray(user, user + 8), saved)
    else other.set(context.subarray(saved, saved + 8), user)
  }
  if (pv && !isWrite) {
    for (const [control, saved] of CONTROL) other.set(context.subarray(saved, saved + 8), control)
    other[FLAGS] = IN_KERNEL
  }
  return 0
}
