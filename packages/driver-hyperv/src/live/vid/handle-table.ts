import { MicrovmiError } from '@microvmi/core/driver'

/** A handle of some process. */
export interface ProcessHandle {
  readonly pid: number
  readonly handle: number
}

/**
 * SYSTEM_HANDLE_INFORMATION_EX: a count and a reserved word, 8 bytes each, then entries of 40 bytes (ntexapi.h as the
 * Process Hacker project documents it). The older class cuts pids and handles to 16 bits.
 */
const FIRST_ENTRY = 16
const ENTRY = { size: 40, pid: 8, handle: 16 } as const

/** What of these processes' handles NtQuerySystemInformation told. Throws `PROTOCOL` for what cannot be such a table. */
export function handlesOf(table: Uint8Array, pids: ReadonlySet<number>): ProcessHandle[] {
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  if (table.length < FIRST_ENTRY) throw malformed(`it has ${table.length} bytes`)
  const count = view.getBigUint64(0, true)
  const room = Math.floor((table.length - FIRST_ENTRY) / ENTRY.size)
  if (count > BigInt(room)) throw malformed(`it claims ${count} entries and has room for ${room}`)
  const handles: ProcessHandle[] = []
  for (let index = 0; index < Number(count); index += 1) {
    const at = FIRST_ENTRY + index * ENTRY.size
    const pid = Number(view.getBigUint64(at + ENTRY.pid, true))
    const handle = Number(view.getBigUint64(at + ENTRY.handle, true))
    if (pids.has(pid) && Number.isSafeInteger(handle)) handles.push({ pid, handle })
  }
  return handles
}

function malformed(why: string): MicrovmiError {
  return new MicrovmiError('PROTOCOL', `Windows' handle table cannot be read: ${why}`)
}
