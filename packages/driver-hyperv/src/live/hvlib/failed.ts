import { type ErrorCode, MicrovmiError } from '@microvmi/core/driver'
import { win32Error } from '../../errors.ts'

/** What may be wrong on top of what Windows says: most failures of this library leave no code. */
const LIKELY =
  'hvlib.dll needs hvmm.sys beside it, administrator rights, and a host that lets that driver load ' +
  '(memory integrity off, or a signature that Windows accepts)'

/** What ERROR_FILE_NOT_FOUND and the like mean here: the driver's device, not a VM's file. */
const NO_DRIVER: ReadonlyMap<ErrorCode, ErrorCode> = new Map([['VM_NOT_FOUND', 'DRIVER_UNAVAILABLE']])

/** The error for a call that failed with a Win32 error, or with 0 where it left none. */
export function failed(call: string, error: number): MicrovmiError {
  const known = win32Error(call, error)
  return new MicrovmiError(NO_DRIVER.get(known.code) ?? known.code, `${known.message}. ${LIKELY}`, {
    cause: known.cause,
  })
}
