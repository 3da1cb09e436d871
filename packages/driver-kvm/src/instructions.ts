/**
 * Instructions that write a system register, found by their bytes. What only looks like one (the inside of another
 * instruction, data among code) does no harm: a breakpoint there is never reached.
 */

/** A control register that `mov` writes. */
export type MovedRegister = 'cr0' | 'cr3' | 'cr4'

/** A `mov crN, reg`. */
export interface MoveToControl {
  readonly address: bigint
  /** The number of the general register that it takes the value from. */
  readonly source: number
}

/** A piece of code. */
export interface Code {
  readonly address: bigint
  readonly bytes: Uint8Array
}

/** ModR/M's middle field for each (Intel SDM volume 2B, "MOV: Move to/from Control Registers"). */
const NUMBER = { cr0: 0, cr3: 3, cr4: 4 } as const

/**
 * Every `mov crN, reg`: 0F 22 and ModR/M, whose upper bits the processor ignores, but which compilers set; perhaps
 * behind a REX prefix whose bit 0 (REX.B) extends the source. With bit 2 (REX.R) it would be another register.
 */
export function* movesTo(register: MovedRegister, pieces: Iterable<Code>): Generator<MoveToControl> {
  for (const { address, bytes } of pieces) {
    for (let at = bytes.indexOf(0x0f); at >= 0; at = bytes.indexOf(0x0f, at + 1)) {
      const modrm = bytes[at + 2]
      if (bytes[at + 1] !== 0x22 || modrm === undefined || (modrm & 0xf8) !== (0xc0 | (NUMBER[register] << 3))) continue
      yield { address: address + BigInt(at), source: modrm & 7 }
      const prefix = bytes[at - 1] ?? 0
      // Which of the two it is, is not known from here: both are taken.
      if ((prefix & 0xf4) === 0x40) {
        yield { address: address + BigInt(at - 1), source: (modrm & 7) | ((prefix & 1) << 3) }
      }
    }
  }
}

/** Every `wrmsr`: 0F 30 (Intel SDM volume 2D). */
export function* writesOfMsrs(pieces: Iterable<Code>): Generator<{ readonly address: bigint }> {
  for (const { address, bytes } of pieces) {
    for (let at = bytes.indexOf(0x0f); at >= 0; at = bytes.indexOf(0x0f, at + 1)) {
      if (bytes[at + 1] === 0x30) yield { address: address + BigInt(at) }
    }
  }
}
