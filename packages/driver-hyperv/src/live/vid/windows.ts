import { MicrovmiError } from '@microvmi/core/driver'
import { win32Error } from '../../errors.ts'
import { Library, lastError } from '../../native.ts'
import { newProcessEntry, processIn } from './process-entry.ts'

/** processthreadsapi.h, handleapi.h, synchapi.h, tlhelp32.h; BOOL is an int32, a HANDLE 64 bits. */
const KERNEL32 = {
  OpenProcess: 'int64 OpenProcess(uint32 access, int inherit, uint32 pid)',
  CloseHandle: 'int CloseHandle(int64 handle)',
  DuplicateHandle:
    'int DuplicateHandle(int64 process, int64 handle, int64 into, void *duplicate, uint32 access, int inherit, uint32 options)',
  WaitForSingleObject: 'uint32 WaitForSingleObject(int64 handle, uint32 milliseconds)',
  CreateToolhelp32Snapshot: 'int64 CreateToolhelp32Snapshot(uint32 flags, uint32 pid)',
  Process32FirstW: 'int Process32FirstW(int64 snapshot, void *entry)',
  Process32NextW: 'int Process32NextW(int64 snapshot, void *entry)',
} as const

/** processthreadsapi.h, securitybaseapi.h, winbase.h. */
const ADVAPI32 = {
  OpenProcessToken: 'int OpenProcessToken(int64 process, uint32 access, void *token)',
  LookupPrivilegeValueW: 'int LookupPrivilegeValueW(str16 system, str16 name, void *luid)',
  AdjustTokenPrivileges:
    'int AdjustTokenPrivileges(int64 token, int disableAll, void *state, uint32 length, void *before, void *beforeLength)',
} as const

/** winternl.h; an NTSTATUS is an int32. */
const NTDLL = {
  NtQuerySystemInformation: 'int32 NtQuerySystemInformation(int what, void *into, uint32 length, void *needed)',
  NtQueryInformationProcess:
    'int32 NtQueryInformationProcess(int64 process, int what, void *into, uint32 length, void *needed)',
} as const

/** The pseudo-handle of this process (GetCurrentProcess). */
const THIS_PROCESS = -1

/** winnt.h. */
const PROCESS_DUP_HANDLE = 0x0040
const PROCESS_QUERY_LIMITED_INFORMATION = 0x1000
const SYNCHRONIZE = 0x0010_0000
const DUPLICATE_SAME_ACCESS = 2
const TOKEN_ADJUST_PRIVILEGES = 0x20
const SE_PRIVILEGE_ENABLED = 2
const WAIT_OBJECT_0 = 0

/** winerror.h. */
const ERROR_NOT_ALL_ASSIGNED = 1300
/** ntstatus.h. */
const STATUS_INFO_LENGTH_MISMATCH = 0xc000_0004
/** Information classes: SystemExtendedHandleInformation, ProcessCommandLineInformation (ntexapi.h, ntpsapi.h). */
const EXTENDED_HANDLES = 64
const COMMAND_LINE = 60
/** tlhelp32.h. */
const TH32CS_SNAPPROCESS = 2

/** A host with more handles than this is none that we know of: 6 million. */
const LARGEST_TABLE = 256 * 2 ** 20
/** A command line has at most 32767 characters (CreateProcessW), behind a UNICODE_STRING of 16 bytes. */
const LARGEST_COMMAND_LINE = 16 + 65_534
const UNICODE_STRING = { length: 0, characters: 16 } as const

let bound: ReturnType<typeof bind> | undefined

function bind() {
  const help = 'it is part of Windows'
  return {
    ...new Library('kernel32.dll', help).bind(KERNEL32),
    ...new Library('advapi32.dll', help).bind(ADVAPI32),
    ...new Library('ntdll.dll', help).bind(NTDLL),
  }
}

function windows() {
  bound ??= bind()
  return bound
}

/** A handle of this process, as Windows numbers it. */
export type Handle = number

/** Lets this process open others that are not its user's: SeDebugPrivilege. Throws `DENIED` without administrator rights. */
export function enableDebugPrivilege(): void {
  const { OpenProcessToken, LookupPrivilegeValueW, AdjustTokenPrivileges } = windows()
  const token = new BigInt64Array(1)
  if (OpenProcessToken(THIS_PROCESS, TOKEN_ADJUST_PRIVILEGES, token) === 0) throw failed('OpenProcessToken')
  const handle = Number(token[0])
  try {
    // TOKEN_PRIVILEGES with one entry: count at 0, LUID at 4, attributes at 12.
    const privileges = new Uint8Array(16)
    const view = new DataView(privileges.buffer)
    view.setUint32(0, 1, true)
    view.setUint32(12, SE_PRIVILEGE_ENABLED, true)
    if (LookupPrivilegeValueW(null, 'SeDebugPrivilege', privileges.subarray(4, 12)) === 0) {
      throw failed('LookupPrivilegeValueW')
    }
    const adjusted = AdjustTokenPrivileges(handle, 0, privileges, 0, null, null)
    const error = lastError()
    if (adjusted !== 0 && error !== ERROR_NOT_ALL_ASSIGNED) return
    throw new MicrovmiError('DENIED', "this user may not open Hyper-V's worker processes: run as administrator", {
      cause: { call: 'AdjustTokenPrivileges', error },
    })
  } finally {
    closeHandle(handle)
  }
}

/** The processes that run a program of this name. */
export function processesNamed(program: string): number[] {
  const { CreateToolhelp32Snapshot, Process32FirstW, Process32NextW } = windows()
  const snapshot = Number(CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0))
  if (snapshot === -1) throw failed('CreateToolhelp32Snapshot')
  try {
    const pids: number[] = []
    const entry = newProcessEntry()
    for (let more = Process32FirstW(snapshot, entry); more !== 0; more = Process32NextW(snapshot, entry)) {
      const { pid, name } = processIn(entry)
      if (name.toLowerCase() === program) pids.push(pid)
    }
    return pids
  } finally {
    closeHandle(snapshot)
  }
}

/** The handles of all processes, as SystemExtendedHandleInformation gives them. */
export function handleTable(): Uint8Array {
  const { NtQuerySystemInformation } = windows()
  for (let size = 2 ** 20; size <= LARGEST_TABLE; size *= 2) {
    const table = new Uint8Array(size)
    const status = Number(NtQuerySystemInformation(EXTENDED_HANDLES, table, size, null)) >>> 0
    if (status === 0) return table
    if (status !== STATUS_INFO_LENGTH_MISMATCH) throw ntFailed('NtQuerySystemInformation', status)
  }
  throw new MicrovmiError('PROTOCOL', `Windows' handle table has over ${LARGEST_TABLE} bytes`)
}

/** A process to take handles from. `undefined` when it has ended, or is not ours to open. */
export function openWorker(pid: number): Handle | undefined {
  const rights = PROCESS_DUP_HANDLE | PROCESS_QUERY_LIMITED_INFORMATION | SYNCHRONIZE
  const handle = Number(windows().OpenProcess(rights, 0, pid))
  return handle === 0 ? undefined : handle
}

/** A process's command line; empty where Windows does not tell it. */
export function commandLine(process: Handle): string {
  const { NtQueryInformationProcess } = windows()
  const answer = new Uint8Array(LARGEST_COMMAND_LINE)
  if (NtQueryInformationProcess(process, COMMAND_LINE, answer, answer.length, null) !== 0) return ''
  const { length, characters } = UNICODE_STRING
  const bytes = new DataView(answer.buffer).getUint16(length, true)
  return Buffer.from(answer.buffer, characters, Math.min(bytes, answer.length - characters)).toString('utf16le')
}

/** A handle of another process, as one of ours. `undefined` for what cannot be had. */
export function duplicated(process: Handle, handle: number): Handle | undefined {
  const { DuplicateHandle } = windows()
  const ours = new BigInt64Array(1)
  if (DuplicateHandle(process, handle, THIS_PROCESS, ours, 0, 0, DUPLICATE_SAME_ACCESS) === 0) return undefined
  return Number(ours[0])
}

/** Whether a process has ended. */
export function hasEnded(process: Handle): boolean {
  return windows().WaitForSingleObject(process, 0) === WAIT_OBJECT_0
}

/** A handle that is closed already is none of our business. */
export function closeHandle(handle: Handle): void {
  windows().CloseHandle(handle)
}

function failed(call: string): MicrovmiError {
  return win32Error(call, lastError())
}

function ntFailed(call: string, status: number): MicrovmiError {
  const text = `0x${status.toString(16)}`
  return new MicrovmiError('HYPERVISOR', `${call} failed with NTSTATUS ${text}: run as administrator, or try again`, {
    cause: { call, status: text },
  })
}
