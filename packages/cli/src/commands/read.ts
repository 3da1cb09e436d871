import { MicrovmiError } from '@microvmi/core'
import { Hexdump } from '../hexdump.ts'
import type { Io } from '../io.ts'
import { hex, printJson } from '../json.ts'
import { write } from '../output.ts'
import { type OpenFlags, withVm } from '../session.ts'

const PIECE = 2 ** 20
const JSON_LIMIT = 2 ** 26

/** `microvmi read TARGET ADDRESS LENGTH` */
export async function readCommand(
  io: Io,
  target: string,
  address: number,
  length: number,
  flags: OpenFlags & { readonly json?: boolean; readonly raw?: boolean },
): Promise<void> {
  if (flags.json && length > JSON_LIMIT) {
    throw new MicrovmiError('BAD_ARGUMENT', `--json takes at most ${JSON_LIMIT} bytes: use --raw for more`)
  }
  return withVm(io, target, flags, ['memory.read'], async (vm, signal) => {
    if (flags.json) {
      const bytes = Buffer.alloc(length)
      vm.memory.read(address, bytes)
      printJson(io, { address: hex(address), length: bytes.length, bytes: bytes.toString('hex') })
      return
    }
    const dump = flags.raw ? undefined : new Hexdump(address)
    const buffer = Buffer.alloc(Math.min(PIECE, length))
    for (let done = 0; done < length && !signal.aborted; done += PIECE) {
      const bytes = buffer.subarray(0, Math.min(PIECE, length - done))
      vm.memory.read(address + done, bytes)
      await write(io, dump ? dump.push(bytes) : bytes, signal)
    }
    if (dump) await write(io, dump.end(), signal)
  })
}
