/** PROCESSENTRY32W (tlhelp32.h) on x64: 568 bytes, the size in the first word. */
const SIZE = 568
const PID = 8
const NAME = { at: 44, characters: 260 } as const

/** An entry for Process32FirstW and Process32NextW to fill. */
export function newProcessEntry(): Uint8Array {
  const entry = new Uint8Array(SIZE)
  new DataView(entry.buffer).setUint32(0, SIZE, true)
  return entry
}

/** The process that an entry tells of. */
export function processIn(entry: Uint8Array): { readonly pid: number; readonly name: string } {
  const view = new DataView(entry.buffer, entry.byteOffset, entry.byteLength)
  const units = Array.from({ length: NAME.characters }, (_, index) => view.getUint16(NAME.at + index * 2, true))
  const end = units.indexOf(0)
  return { pid: view.getUint32(PID, true), name: String.fromCharCode(...units.slice(0, end < 0 ? units.length : end)) }
}
