/**
 * A segment register. What the backend does not give is `undefined`.
 */
export interface Segment {
  readonly selector: number
  /** Linear base address. */
  readonly base: bigint | undefined
  /** Limit in bytes, granularity already applied. */
  readonly limit: number | undefined
  /**
   * Access rights as in the second descriptor word from bit 8 on: type in bits 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13,
   * D/B 14, G 15 (Intel SDM volume 3C, table 24-2).
   */
  readonly attributes: number | undefined
}

/** GDTR or IDTR. */
export interface DescriptorTable {
  /** Linear base address. */
  readonly base: bigint
  /** Limit in bytes. */
  readonly limit: number
}

/** The registers that every backend with `registers.read` gives. */
export interface CoreRegisters {
  rax: bigint
  rbx: bigint
  rcx: bigint
  rdx: bigint
  rsi: bigint
  rdi: bigint
  rbp: bigint
  rsp: bigint
  r8: bigint
  r9: bigint
  r10: bigint
  r11: bigint
  r12: bigint
  r13: bigint
  r14: bigint
  r15: bigint
  rip: bigint
  rflags: bigint
  cr0: bigint
  cr2: bigint
  cr3: bigint
  cr4: bigint
}

/** The registers that a backend may give: absent means that it does not, never that the register is 0. */
export interface FurtherRegisters {
  cr8: bigint
  xcr0: bigint
  dr0: bigint
  dr1: bigint
  dr2: bigint
  dr3: bigint
  dr6: bigint
  dr7: bigint
  cs: Segment
  ds: Segment
  es: Segment
  fs: Segment
  gs: Segment
  ss: Segment
  ldt: Segment
  tr: Segment
  gdt: DescriptorTable
  idt: DescriptorTable
  efer: bigint
  star: bigint
  lstar: bigint
  cstar: bigint
  fmask: bigint
  sysenterCs: bigint
  sysenterEsp: bigint
  sysenterEip: bigint
  kernelGsBase: bigint
  pat: bigint
  apicBase: bigint
  tsc: bigint
}

type AllRegisters = CoreRegisters & FurtherRegisters

/** The name of a register of x86-64. */
export type RegisterName = keyof AllRegisters

/**
 * One vCPU's registers at one moment, in a fresh object that the caller owns. All integers are unsigned.
 *
 * `architecture` leaves room for other ones; today it is always `'x86-64'` (also while the vCPU is in an older mode).
 */
export type Registers = { readonly architecture: 'x86-64' } & Readonly<CoreRegisters> & {
    readonly [Name in keyof FurtherRegisters]?: FurtherRegisters[Name] | undefined
  }

/** New values for some registers; the others stay. */
export type RegisterChanges = { readonly [Name in RegisterName]?: AllRegisters[Name] }

/** An exception, interrupt or NMI to be delivered to a vCPU. */
export type Injection =
  | {
      readonly type: 'exception'
      /** 0 to 31. */
      readonly vector: number
      /** For exceptions that push one. */
      readonly errorCode?: number
      /** For a page fault: the faulting virtual address. */
      readonly cr2?: bigint
    }
  | {
      readonly type: 'interrupt'
      /** 32 to 255. */
      readonly vector: number
    }
  | { readonly type: 'nmi' }
