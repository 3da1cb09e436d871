import { MicrovmiError } from '@microvmi/core/driver'

/**
 * The text of VirtualBox's own debug console (VirtualBox, src/VBox/Debugger/DBGConsole.cpp). Numbers are hexadecimal.
 */
export const PROMPT = 'VBoxDbg> '
export const WELCOME = 'Welcome to the VirtualBox Debugger!'

/** Elements of one `dq` at most: more is "Too many elements requested". */
export const MOST_WORDS = 0x800
/** The console keeps its input in a ring of 2 KiB (DBGCInternal.h, DBGC's `achInput`), and a line has to fit. */
const RING = 2048
export const MOST_LINE = 1600

/**
 * A line as it can be sent after `sent` bytes on the same connection. Where a command would end at the last byte of the
 * ring, VirtualBox 7.2 loses the place: it never answers, or complains for ever. A blank in front moves it.
 */
export function padded(line: string, sent: number): string {
  const last = line[RING - 1 - (sent % RING)]
  return last === ';' || last === '\n' ? ` ${line}` : line
}

/** Text in front of which an answer is complete: no prompt of an event that comes between is taken for its end. */
export function markerOf(number: number): string {
  return `microvmi-${number.toString(16)}-end`
}

/** One thing that the console says about guest memory. */
export type MemoryLine =
  | { readonly address: number; readonly words: readonly bigint[] }
  | { readonly error: string; readonly address: number | undefined }

/**
 * Lines of `dq`: `%%address: word word`; and of complaints: `error: …  Reading memory at %%address.` Everything else
 * (prompts, halted vCPUs, warnings) is not about memory.
 */
export function* memoryLines(text: string): Generator<MemoryLine> {
  for (const raw of text.split(/\r?\n/)) {
    const line = raw.replaceAll(PROMPT, '')
    const [, address, rest] = /^%%([0-9a-f]{16}):((?: [0-9a-f]{16})+)$/i.exec(line) ?? []
    if (address !== undefined && rest !== undefined) {
      const words = rest
        .trim()
        .split(' ')
        .map((word) => BigInt(`0x${word}`))
      yield { address: addressOf(address), words }
      continue
    }
    const error = complaintOf(line)
    if (error === undefined) continue
    const [, at] = /memory at %%([0-9a-f]{1,16})/i.exec(line) ?? []
    yield { error, address: at === undefined ? undefined : addressOf(at) }
  }
}

/** The first complaint in a text, if there is one. */
export function complaintIn(text: string): string | undefined {
  for (const line of text.split(/\r?\n/)) {
    const complaint = complaintOf(line.replaceAll(PROMPT, ''))
    if (complaint !== undefined) return complaint
  }
  return undefined
}

/** The numbers of the breakpoints that `bl` lists: ` 0x0 e 1 x ffffffff80007d48 …`, number, state, hits and sort. */
export function breakpointsIn(text: string): number[] {
  return text.split(/\r?\n/).flatMap((line) => {
    const [, number] = /^\s*0x([0-9a-f]{1,4}) [ed] /i.exec(line) ?? []
    return number === undefined ? [] : [Number(`0x${number}`)]
  })
}

function complaintOf(line: string): string | undefined {
  const [, complaint] = /^(?:[a-z]+: )?(?:error|Syntax error): *(.*)$/.exec(line) ?? []
  return complaint
}

function addressOf(digits: string): number {
  const address = Number(`0x${digits}`)
  if (address < 2 ** 52) return address
  throw new MicrovmiError('PROTOCOL', `the debug console speaks of guest-physical address 0x${digits}`)
}

/** `eq`, `ed` or `eb`: one value at an address. */
export function storeCommand(address: number, bytes: Uint8Array): string {
  const letter = { 8: 'q', 4: 'd', 2: 'w', 1: 'b' }[bytes.length]
  const digits = [...bytes]
    .reverse()
    .map((byte) => byte.toString(16).padStart(2, '0'))
    .join('')
  return `e${letter} %%${address.toString(16)} ${digits}`
}
