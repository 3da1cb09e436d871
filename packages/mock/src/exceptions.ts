/** Vectors of x86-64's exceptions (Intel SDM volume 3A, table 6-1). */
export const DEBUG = 1
export const NON_MASKABLE = 2
export const BREAKPOINT = 3
export const UNDEFINED_OPCODE = 6
export const DOUBLE_FAULT = 8
export const GENERAL_PROTECTION = 13
export const PAGE_FAULT = 14
/** The first vector that devices use: the timer's. */
export const TIMER = 32

/** Page-fault error code (Intel SDM volume 3A, figure 4-12). */
export const FAULT_PRESENT = 1
export const FAULT_WRITE = 2
export const FAULT_USER = 4
export const FAULT_FETCH = 16

/** An exception or interrupt on its way to a vCPU. */
export interface Exception {
  readonly vector: number
  readonly errorCode: number | undefined
  /** For a page fault: the address, its low 48 bits. */
  readonly cr2: number | undefined
  /** A fault leaves rip at its instruction. */
  readonly fault: boolean
  /** An event has told of it, or need not. */
  readonly reported: boolean
}

/** Vectors that push an error code (Intel SDM volume 3A, table 6-1). */
export const WITH_ERROR_CODE: ReadonlySet<number> = new Set([8, 10, 11, 12, 13, 14, 17, 21])

/**
 * Thrown by an instruction that cannot be executed: no error of ours, so none of the Error class, whose stack trace
 * costs more than all the rest. Every instruction accesses memory before it changes anything, so it can start again.
 */
export class Fault {
  readonly vector: number
  readonly errorCode: number | undefined
  readonly address: number | undefined

  constructor(vector: number, errorCode?: number, address?: number) {
    this.vector = vector
    this.errorCode = errorCode
    this.address = address
  }
}

/** Thrown by an instruction that waits for an answer. */
export const HELD: unique symbol = Symbol('held')

/** Throws #GP in a process. */
export function onlyKernel({ privilege }: { readonly privilege: number }): void {
  if (privilege !== 0) throw new Fault(GENERAL_PROTECTION, 0)
}
