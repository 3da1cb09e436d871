/**
 * What CPUID gives: EAX, EBX, ECX, EDX (Intel SDM volume 2A, table 3-8). Only what the guest has is told.
 */
export function cpuid(leaf: number, vcpu: number, vcpuCount: number): readonly [number, number, number, number] {
  switch (leaf) {
    case 0:
      return [1, ...text('microvmimock', [0, 8, 4])]
    case 1:
      // Family 6; the APIC id; SSE3 off, hypervisor present (bit 31); FPU, TSC, MSR, PAE, APIC, PGE.
      return [0x600, ((vcpu << 24) | (vcpuCount << 16)) >>> 0, 0x8000_0000, 0x2271]
    case 0x4000_0000:
      return [0x4000_0000, ...text('microvmimock', [0, 4, 8])]
    case 0x8000_0000:
      return [0x8000_0008, 0, 0, 0]
    case 0x8000_0001:
      // SYSCALL, NX, 1 GiB pages, long mode.
      return [0, 0, 0, 0x2410_0800]
    case 0x8000_0008:
      // 52 bits of physical, 48 of virtual address.
      return [0x3034, 0, 0, 0]
    default:
      return [0, 0, 0, 0]
  }
}

/** Twelve characters in three registers, in the order in which the leaf has them. */
function text(characters: string, offsets: readonly [number, number, number]): [number, number, number] {
  const bytes = new DataView(new ArrayBuffer(characters.length))
  for (let index = 0; index < characters.length; index++) bytes.setUint8(index, characters.charCodeAt(index))
  const [ebx, ecx, edx] = offsets
  return [bytes.getUint32(ebx, true), bytes.getUint32(ecx, true), bytes.getUint32(edx, true)]
}
