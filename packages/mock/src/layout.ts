/*
 * Where the guest's kernel has what. Virtual addresses are their low 48 bits (see page-tables.ts); offsets are in
 * bytes. docs/guest.md describes the same for readers.
 */

/** All of physical memory, 2 MiB pages: 0xffff888000000000. */
export const DIRECT_MAP = 0x8880_0000_0000
/** The kernel's code: 0xffffffff81000000. */
export const KERNEL_TEXT = 0xffff_8100_0000
/** The interrupt descriptor table: 0xfffffe0000000000. */
export const INTERRUPT_TABLE = 0xfe00_0000_0000

/** A process's code, data and the end of its stack. */
export const USER_TEXT = 0x40_0000
export const USER_DATA_START = 0x60_0000
export const USER_STACK_END = 0x7fff_ffff_f000

/** What a task has at the beginning of its page; its kernel stack comes down from the page's end. */
export const TASK = {
  /** 16 bytes, filled up with zeros. */
  name: 0x00,
  pid: 0x10,
  cr3: 0x18,
  /** Virtual address of the next task of the same vCPU. */
  next: 0x20,
  /** Virtual address of the vCPU's page. */
  cpu: 0x28,
  /** The kernel stack's pointer while the task does not run. */
  stack: 0x30,
  /** Where the process begins, and begins again after a fault. */
  entry: 0x38,
  userStack: 0x40,
  threadPointer: 0x48,
  systemCalls: 0x50,
  faults: 0x58,
  breakpoints: 0x60,
  debugExceptions: 0x68,
  switches: 0x70,
  /** Virtual address of the next of all tasks. */
  nextOfAll: 0x78,
} as const

/** What a vCPU has in its page. */
export const CPU = {
  number: 0x00,
  /** Virtual address of the task that runs. */
  current: 0x08,
  ticks: 0x10,
  nonMaskable: 0x18,
  interrupts: 0x20,
  /** What lgdt, lidt, sgdt and sidt read and write. */
  gdtPointer: 0x40,
  idtPointer: 0x50,
  scratch: 0x60,
  tss: 0x100,
  gdt: 0x200,
} as const

/** Numbers of the kernel's services: what a process has in rax at `syscall`. */
export const SERVICE = {
  /** Lets the next process run. */
  yield: 0,
  /** cpuid of the leaf in rdi. */
  identify: 1,
  /** Writes rdi to KERNEL_GS_BASE. */
  setPointer: 2,
  /** Writes the byte in rdi to the console's port. */
  put: 3,
  /** Reads the clock's port. */
  clock: 4,
  /** vmcall with the number in rdi. */
  call: 5,
  /** Stores and loads the descriptor tables again. */
  tables: 6,
  /** Changes a bit of CR0, CR4 and XCR0. */
  control: 7,
  /** smc. */
  privileged: 8,
  /** A debug exception in the kernel. */
  debug: 9,
  /** An int3 in the kernel. */
  breakpoint: 10,
  /** Halts the vCPU until its next interrupt. */
  sleep: 11,
} as const

/** The bytes written there make `guest.console`. */
export const CONSOLE_PORT = 0xe9
/** Reads as the low byte of the vCPU's milliseconds. */
export const CLOCK_PORT = 0x71

export const TSS_LENGTH = 0x68
export const GDT_LENGTH = 0x38
