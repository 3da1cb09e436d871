import { release } from 'node:os'
import { MicrovmiError } from '@microvmi/core/driver'
import { win32Error } from '../../errors.ts'

/** winerror.h: what vid.sys says to a process that it does not serve. */
const ERROR_INVALID_FUNCTION = 1
export const ERROR_ACCESS_DENIED = 5
const ERROR_NOT_SUPPORTED = 50

/** The error for a call of vid.dll that failed. */
export function failed(call: string, error: number): MicrovmiError {
  if (![ERROR_INVALID_FUNCTION, ERROR_ACCESS_DENIED, ERROR_NOT_SUPPORTED].includes(error))
    return win32Error(call, error)
  return new MicrovmiError(
    'UNSUPPORTED',
    `${call} is refused (Win32 error ${error}): the vid.sys of this Windows (${release()}) serves a VM's own worker ` +
      'process only, as all do from about Windows 10 1803 on. Use hvlib.dll, which brings a driver of its own',
    { cause: { call, error } },
  )
}
