import { type ErrorCode, MicrovmiError } from '@microvmi/core/driver'

type Meaning = readonly [ErrorCode, string]

/** Win32 errors that these libraries are known to give (winerror.h), and what the user can do. */
const WIN32: ReadonlyMap<number, Meaning> = new Map<number, Meaning>([
  [2, ['VM_NOT_FOUND', 'the file was not found: check its path']],
  [3, ['VM_NOT_FOUND', 'the path was not found: check it']],
  [5, ['DENIED', 'access was refused: run as administrator']],
  [6, ['VM_GONE', 'the handle is no longer valid: the partition, or its worker process, has ended']],
  [8, ['HYPERVISOR', 'there is not enough memory: close other programs']],
  [11, ['PROTOCOL', 'the file has another format: is it a saved state of Hyper-V?']],
  [13, ['PROTOCOL', 'the data are invalid: is the file a saved state of Hyper-V, and whole?']],
  [14, ['HYPERVISOR', 'there is not enough memory: close other programs']],
  [32, ['BUSY', 'another process has the file open: copy it, or stop that process']],
  [38, ['PROTOCOL', 'the file ends too early: is it whole?']],
  [50, ['UNSUPPORTED', 'this version does not support the request']],
  [87, ['UNSUPPORTED', 'a parameter was refused: this is another version of the library, or it lacks the register']],
  [998, ['VM_GONE', 'memory of the partition is no longer accessible: it has ended']],
  [1062, ['DRIVER_UNAVAILABLE', 'a service does not run: start Hyper-V Virtual Machine Management (vmms)']],
  [1168, ['VM_NOT_FOUND', 'the element was not found: no VM or snapshot of that name has a saved state']],
  [1314, ['DENIED', 'a privilege is missing: run as administrator']],
])

/** HRESULTs of COM itself (winerror.h), as unsigned numbers. */
const HRESULTS: ReadonlyMap<number, Meaning> = new Map<number, Meaning>([
  [0x8000_4001, ['UNSUPPORTED', 'the library does not implement it']],
  [0x8000_4002, ['UNSUPPORTED', 'the library does not support the request']],
  [0x8000_4003, ['HYPERVISOR', 'an address was refused']],
  [0x8000_4005, ['HYPERVISOR', 'unspecified failure']],
  [0x8000_ffff, ['HYPERVISOR', 'catastrophic failure inside the library']],
])

/** winerror.h: HRESULT_FROM_WIN32 puts FACILITY_WIN32 (7) and the severity bit above the 16 bits of the error. */
const FROM_WIN32 = 0x8007

/** Whether an HRESULT says failure: its severity bit. */
export function failed(result: number | bigint): boolean {
  return Number(BigInt.asIntN(32, BigInt(result))) < 0
}

/** The error for a call's failing HRESULT. */
export function hresultError(call: string, result: number | bigint): MicrovmiError {
  const value = Number(BigInt.asUintN(32, BigInt(result)))
  const meaning = value >>> 16 === FROM_WIN32 ? WIN32.get(value & 0xffff) : HRESULTS.get(value)
  const [code, text] = meaning ?? (['HYPERVISOR', 'the code is not one that is known here'] as const)
  const name = `0x${value.toString(16).padStart(8, '0')}`
  return new MicrovmiError(code, `${call} failed with HRESULT ${name}: ${text}`, { cause: { call, hresult: name } })
}

/** The error for a call that failed with a Win32 error; 0 where it set none. */
export function win32Error(call: string, error: number): MicrovmiError {
  const [code, text] =
    error === 0
      ? (['HYPERVISOR', 'the library gave no reason'] as const)
      : (WIN32.get(error) ?? (['HYPERVISOR', 'the code is not one that is known here'] as const))
  return new MicrovmiError(code, `${call} failed with Win32 error ${error}: ${text}`, { cause: { call, error } })
}
