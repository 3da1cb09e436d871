import { Hexdump } from '../hexdump.ts'
import type { Io } from '../io.ts'
import { hex, printJson } from '../json.ts'
import { type OpenFlags, withVm } from '../session.ts'

const PIECE = 2 ** 20
const JSON_LIMIT = 2 ** 26

/** `microvmi read TARGET ADDRESS LENGTH` */
export function readCommand(
  io: Io,
  target: string,
  address: number,
  length: number,
  flags: OpenFlags & { readonly json?: boolean; readonly raw?: boolean },
): Promise<void> {
  return withVm(io, target, flags, ['memory.read'], async (vm, signal) => {
    if (flags.json) {
      const bytes = Buffer.alloc(Math.min(length, JSON_LIMIT))
      vm.memory.read(address, bytes)
      printJson(io, { address: hex(address), length: bytes.length, bytes: bytes.toString('hex') })
      return
    }
    const dump = flags.raw ? undefined : new Hexdump(address)
    const buffer = Buffer.alloc(Math.min(PIECE, length))
    for (let done = 0; done < length && !signal.aborted; done += PIECE) {
      const bytes = buffer.subarray(0, Math.min(PIECE, length - done))
      vm.memory.read(address + done, bytes)
      await write(io, dump ? dump.push(bytes) : bytes)
    }
    if (dump) await write(io, dump.end())
  })
}

/** Waits until the reader took it: the buffer is used again, and a slow reader must not fill our memory. */
function write(io: Io, bytes: string | Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    io.stdout.write(bytes, (error) => (error ? reject(error) : resolve()))
  })
}
