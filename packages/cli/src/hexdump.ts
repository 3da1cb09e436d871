const WIDTH = 16

/**
 * Bytes as `hexdump -C` prints them: offset, sixteen bytes, the printable ones; equal lines folded to `*`, and the end's
 * offset on a line of its own. Feed it pieces in order.
 */
export class Hexdump {
  #address: number
  readonly #held = new Uint8Array(WIDTH)
  #length = 0
  #last: string | undefined
  #isFolding = false

  /** @param address of the first byte */
  constructor(address: number) {
    this.#address = address
  }

  /** The lines that these bytes make whole. */
  push(bytes: Uint8Array): string {
    let text = ''
    for (let done = 0; done < bytes.length; ) {
      const step = Math.min(WIDTH - this.#length, bytes.length - done)
      this.#held.set(bytes.subarray(done, done + step), this.#length)
      this.#length += step
      done += step
      if (this.#length === WIDTH) text += this.#line()
    }
    return text
  }

  /** The last line, if it is not whole, and the offset behind the last byte. */
  end(): string {
    const rest = this.#length > 0 ? this.#line() : ''
    return `${rest}${offset(this.#address)}\n`
  }

  #line(): string {
    const bytes = this.#held.subarray(0, this.#length)
    const hexadecimal = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0'))
    const halves = [hexadecimal.slice(0, 8).join(' '), hexadecimal.slice(8).join(' ')].join('  ').trimEnd()
    const text = Array.from(bytes, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('')
    const line = `${halves.padEnd(49)} |${text}|`
    const address = this.#address
    const isWhole = this.#length === WIDTH
    this.#address += this.#length
    this.#length = 0
    if (isWhole && line === this.#last) {
      if (this.#isFolding) return ''
      this.#isFolding = true
      return '*\n'
    }
    this.#last = line
    this.#isFolding = false
    return `${offset(address)}  ${line}\n`
  }
}

function offset(address: number): string {
  return address.toString(16).padStart(8, '0')
}
