import { type ErrorCode, MicrovmiError } from '@microvmi/core/driver'
import { errno } from './libraries.ts'

/** errno's values (Linux, asm-generic/errno-base.h and errno.h); Xen's own are the same (xen/errno.h). */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  E2BIG: 7,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENOSYS: 38,
  ENODATA: 61,
  EOPNOTSUPP: 95,
} as const

const CODES: ReadonlyMap<number, ErrorCode> = new Map([
  [ERRNO.EPERM, 'DENIED'],
  [ERRNO.EACCES, 'DENIED'],
  [ERRNO.ESRCH, 'VM_GONE'],
  [ERRNO.EBUSY, 'BUSY'],
  [ERRNO.ENOSYS, 'UNSUPPORTED'],
  [ERRNO.EOPNOTSUPP, 'UNSUPPORTED'],
  [ERRNO.ENODEV, 'UNSUPPORTED'],
])

/** The error of a call that has just failed. */
export function failed(call: string, what: string, number = errno()): MicrovmiError {
  const name = Object.entries(ERRNO).find(([, value]) => value === number)?.[0] ?? `errno ${number}`
  return new MicrovmiError(CODES.get(number) ?? 'HYPERVISOR', `${what}: ${call} failed with ${name}`, {
    cause: { call, errno: number },
  })
}
