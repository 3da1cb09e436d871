/** What VirtualBox's debug console says to commands, for tests: it has 1 MiB of memory, and no more. */
const memory = Buffer.alloc(2 ** 20)
const digits = (value: bigint) => value.toString(16).padStart(16, '0')

/**
 * The answer to one command, in a manner: `short` gives less of memory than was asked for and `long` more, `complaining`
 * none of it, and `foreign` as another version might say it.
 */
export function execute(command: string, manner = 'well'): string {
  const [, text] = /^echo "(.*)"$/.exec(command) ?? []
  if (text !== undefined) return `${text}\r\n`
  const [, at, count] = /^dq %%([0-9a-f]+) L ([0-9a-f]+)$/.exec(command) ?? []
  if (manner === 'complaining') return 'error: VERR_NOT_SUPPORTED\r\n'
  if (manner === 'foreign') return `${at}: 00 01 02 03 04 05 06 07\r\n`
  const more = manner === 'long' ? 4 : 0
  if (at !== undefined && count !== undefined) {
    return read(Number(`0x${at}`), Number(`0x${count}`) + more, manner === 'short')
  }
  const [, letter = '', to, value] = /^e([bwdq]) %%([0-9a-f]+) ([0-9a-f]+)$/.exec(command) ?? []
  if (to === undefined || value === undefined) return `Syntax error: Unknown command '${command}'!\r\n`
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(`0x${value}`))
  bytes.copy(memory, Number(`0x${to}`), 0, { b: 1, w: 2, d: 4, q: 8 }[letter])
  return ''
}

function read(address: number, count: number, short: boolean): string {
  let text = ''
  for (let done = 0; done < count; done += 2) {
    const at = address + done * 8
    const words = Math.min(2, count - done)
    const there = Math.max(0, Math.min(words, (memory.length - at) / 8))
    const said = Array.from({ length: there }, (_, index) => digits(memory.readBigUInt64LE(at + index * 8)))
    if (said.length > 0) text += `%%${digits(BigInt(at))}: ${said.join(' ')}\r\n`
    if (there < words) {
      const bad = digits(BigInt(at + there * 8))
      return `${text}error: VERR_PGM_INVALID_GC_PHYSICAL_ADDRESS:  Reading memory at %%${bad}.\r\n`
    }
    if (short) return text
  }
  return text
}
