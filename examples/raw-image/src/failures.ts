import { type ErrorCode, MicrovmiError } from '@microvmi/core/driver'

/** What was being done to the file. */
export type Doing = 'opened' | 'read' | 'written'

const codes: Readonly<Record<string, ErrorCode>> = {
  ENOENT: 'VM_NOT_FOUND',
  ENOTDIR: 'VM_NOT_FOUND',
  EISDIR: 'BAD_ARGUMENT',
  ENAMETOOLONG: 'VM_NOT_FOUND', // no file can have that name
  ENXIO: 'BAD_ARGUMENT', // a socket, or a pipe without its other end
  ERR_INVALID_ARG_VALUE: 'BAD_ARGUMENT', // a NUL in the path
  EACCES: 'DENIED',
  EPERM: 'DENIED',
  EROFS: 'DENIED',
  ETXTBSY: 'BUSY',
  EBUSY: 'BUSY', // Windows: someone has it open for himself
  ENOSPC: 'STORAGE',
  EDQUOT: 'STORAGE',
}

const advice: { readonly [Code in ErrorCode]?: string } = {
  VM_NOT_FOUND: 'is the path right, also from the current directory?',
  BAD_ARGUMENT: 'name a regular file',
  DENIED: 'who runs this needs the right to read it, and with writable: true to write it',
  BUSY: 'end what uses it',
  STORAGE: 'is the disk full?',
}

/** Calls node, and throws what it throws as an error of microvmi's. */
export function translate<Result>(path: string, doing: Doing, call: () => Result): Result {
  try {
    return call()
  } catch (error) {
    throw failure(path, doing, error)
  }
}

/** What to throw for an error of node's. */
export function failure(path: string, doing: Doing, error: unknown): unknown {
  if (error instanceof MicrovmiError || !(error instanceof Error) || !('code' in error)) return error
  const code = codes[String(error.code)] ?? (doing === 'written' ? 'STORAGE' : 'HYPERVISOR')
  const help = advice[code] ?? 'the cause has the error of the system'
  return new MicrovmiError(code, `${quoted(path)} cannot be ${doing} (${String(error.code)}): ${help}`, {
    cause: error,
  })
}

/** A path for a message: whatever the user gave, it is not longer than a few lines. */
export function quoted(path: string): string {
  return path.length <= 300 ? `'${path}'` : `'${path.slice(0, 300)}…'`
}
