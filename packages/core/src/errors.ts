/**
 * Every code that a {@link MicrovmiError} can carry. Codes are stable; messages are for people and may change.
 *
 * | code | meaning |
 * | --- | --- |
 * | `UNSUPPORTED` | this driver, host or VM lacks the capability; the message says why |
 * | `UNKNOWN_DRIVER` | no driver is registered under the scheme |
 * | `DRIVER_CONFLICT` | several drivers are registered under one scheme |
 * | `DRIVER_UNAVAILABLE` | the driver cannot work on this host: a library, a right or a platform is missing |
 * | `CONTRACT_MISMATCH` | the driver was written against a contract that this core does not speak |
 * | `VM_NOT_FOUND` | no VM of that name or id |
 * | `VM_AMBIGUOUS` | several VMs, or several drivers, answer to that name |
 * | `VM_GONE` | the VM, or the hypervisor process behind it, ended while it was open |
 * | `BAD_ADDRESS` | a byte of the range is not guest memory; {@link MicrovmiError.address} is the first such |
 * | `BAD_ARGUMENT` | a value is out of range or of the wrong type; nothing was touched |
 * | `BUSY` | someone else, or an earlier call, holds what is needed |
 * | `DENIED` | the operating system or the hypervisor refuses this user |
 * | `TIMEOUT` | the other side did not answer before the deadline |
 * | `ABORTED` | the caller's signal was aborted |
 * | `PROTOCOL` | the other side said something that its protocol does not allow |
 * | `ALREADY_ANSWERED` | the event had its answer before |
 * | `CLOSED` | the Vm, or the intercept, was closed |
 * | `EXISTS` | a file is there already, and was not to be overwritten |
 * | `STORAGE` | a file could not be written: a full disk, a read-only place, a broken device |
 * | `HYPERVISOR` | the hypervisor refused or failed the call; `cause` has its own error |
 */
export type ErrorCode =
  | 'UNSUPPORTED'
  | 'UNKNOWN_DRIVER'
  | 'DRIVER_CONFLICT'
  | 'DRIVER_UNAVAILABLE'
  | 'CONTRACT_MISMATCH'
  | 'VM_NOT_FOUND'
  | 'VM_AMBIGUOUS'
  | 'VM_GONE'
  | 'BAD_ADDRESS'
  | 'BAD_ARGUMENT'
  | 'BUSY'
  | 'DENIED'
  | 'TIMEOUT'
  | 'ABORTED'
  | 'PROTOCOL'
  | 'ALREADY_ANSWERED'
  | 'CLOSED'
  | 'EXISTS'
  | 'STORAGE'
  | 'HYPERVISOR'

/** What may accompany a {@link MicrovmiError}. */
export interface MicrovmiErrorOptions {
  /** The failing call's own error, or `{ call, errno }` where there is no error object. */
  readonly cause?: unknown
  /** For `BAD_ADDRESS`: the first guest-physical address that is not guest memory. */
  readonly address?: number
}

const brand = Symbol.for('microvmi.error')

/**
 * The one error class. `instanceof` also holds for errors made by another copy of core in the same process.
 *
 * @example
 * ```ts
 * import { MicrovmiError, type Vm } from '@microvmi/core'
 *
 * function firstWord(vm: Vm<'memory.read'>): number | undefined {
 *   try {
 *     return vm.memory.readUint32(0)
 *   } catch (error) {
 *     if (error instanceof MicrovmiError && error.code === 'BAD_ADDRESS') return undefined
 *     throw error
 *   }
 * }
 * ```
 */
export class MicrovmiError extends Error {
  override readonly name = 'MicrovmiError'
  readonly code: ErrorCode
  /** For `BAD_ADDRESS`: the first guest-physical address that is not guest memory. */
  readonly address: number | undefined

  constructor(code: ErrorCode, message: string, options: MicrovmiErrorOptions = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.code = code
    this.address = options.address
    Object.defineProperty(this, brand, { value: true })
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && brand in value
  }
}

/** A `BAD_ADDRESS` error for the first byte at `address` that is not guest memory. */
export function badAddress(address: number, why = 'is not guest memory'): MicrovmiError {
  return new MicrovmiError('BAD_ADDRESS', `guest-physical address 0x${address.toString(16)} ${why}`, { address })
}

/** A `BAD_ARGUMENT` error. */
export function badArgument(message: string): MicrovmiError {
  return new MicrovmiError('BAD_ARGUMENT', message)
}

/** The message of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown)
}
