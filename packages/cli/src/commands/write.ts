import { readFileSync } from 'node:fs'
import { MicrovmiError } from '@microvmi/core'
import type { Io } from '../io.ts'
import { hex, printJson } from '../json.ts'
import { type OpenFlags, withVm } from '../session.ts'

/** What is not typed in comes from a file or stdin; larger writes are not what this command is for. */
const LIMIT = 2 ** 28

/** `microvmi write TARGET ADDRESS` */
export async function writeCommand(
  io: Io,
  target: string,
  address: number,
  flags: OpenFlags & { readonly json?: boolean; readonly hex?: Uint8Array; readonly file?: string },
): Promise<void> {
  if (flags.hex && flags.file !== undefined) throw new MicrovmiError('BAD_ARGUMENT', 'give --hex or --file, not both')
  const bytes = flags.hex ?? (flags.file === undefined ? await readAll(io) : fileContents(flags.file))
  if (bytes.length === 0) throw new MicrovmiError('BAD_ARGUMENT', 'there is nothing to write')
  await withVm(io, target, flags, ['memory.write'], (vm) => {
    vm.memory.write(address, bytes)
    if (flags.json) printJson(io, { address: hex(address), length: bytes.length })
    else io.stderr.write(`${bytes.length} bytes were written to ${hex(address)}\n`)
  })
}

function fileContents(path: string): Uint8Array {
  try {
    return readFileSync(path)
  } catch (error) {
    throw new MicrovmiError('BAD_ARGUMENT', `${path} cannot be read: ${String(error)}`, { cause: error })
  }
}

async function readAll(io: Io): Promise<Uint8Array> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of io.stdin) {
    const bytes = Buffer.from(chunk as Uint8Array | string)
    length += bytes.length
    if (length > LIMIT) throw new MicrovmiError('BAD_ARGUMENT', `stdin has over ${LIMIT} bytes`)
    chunks.push(bytes)
  }
  return Buffer.concat(chunks)
}
