import type { PeerDomain } from './peer-domain.testing.ts'

/** HVM_SAVE_CODE of the records (hvm/save.h). */
const [END, HEADER, CPU, LAPIC_REGISTERS] = [0, 1, 2, 6]

/** A whole saved domain: records, each behind its descriptor. An interrupt may come right behind. */
export function saveAll(domain: PeerDomain, into: Uint8Array | null): number {
  const records = [
    recordOf(HEADER, 0, new Uint8Array(24)),
    ...domain.vcpus.map(({ context }, vcpu) => recordOf(CPU, vcpu, context)),
    ...domain.vcpus.map(({ lapic }, vcpu) => recordOf(LAPIC_REGISTERS, vcpu, lapic)),
    recordOf(END, 0, new Uint8Array(0)),
  ]
  const bytes = Buffer.concat(records)
  if (into) {
    into.set(bytes)
    domain.afterSave()
  }
  return bytes.length
}

function recordOf(code: number, instance: number, contents: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(8 + contents.length)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, code, true)
  view.setUint16(2, instance, true)
  view.setUint32(4, contents.length, true)
  bytes.set(contents, 8)
  return bytes
}

/** hvm_load() (Xen, arch/x86/hvm/save.c): the header first, and vCPUs that no registers are loaded of are down. */
export function loadAll({ vcpus }: PeerDomain, from: Uint8Array): number {
  const view = new DataView(from.buffer, from.byteOffset, from.byteLength)
  if (view.getUint16(0, true) !== HEADER) return -1
  for (const vcpu of vcpus) vcpu.isDown = true
  for (let at = 0; at + 8 <= view.byteLength; at += 8 + view.getUint32(at + 4, true)) {
    const code = view.getUint16(at, true)
    const vcpu = vcpus[view.getUint16(at + 2, true)]
    const contents = from.subarray(at + 8, at + 8 + view.getUint32(at + 4, true))
    if (code === END) return 0
    if (code === LAPIC_REGISTERS) vcpu?.lapic.set(contents)
    if (code !== CPU || !vcpu) continue
    vcpu.context.set(contents)
    vcpu.isDown = false
  }
  return -1
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
