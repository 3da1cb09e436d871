import { MicrovmiError } from '@microvmi/core/driver'

/** A register as the gdbstub numbers it. */
export interface GdbRegister {
  readonly name: string
  readonly number: number
  readonly bits: number
}

/** A vCPU of QEMU's has some hundred registers at most. */
const REGISTER_LIMIT = 4096
const COMMENT = /<!--.*?-->/gs

/** The names of further documents that a target description includes (GDB manual, "Target Description Format"). */
export function includesOf(xml: string): string[] {
  return [...xml.replace(COMMENT, '').matchAll(/<xi:include\s+href="([^"]+)"/g)].map(([, href = '']) => href)
}

/**
 * The registers of a target description's documents, numbered in their order unless a `regnum` says otherwise. QEMU
 * comments some registers out: they have no number. Throws `PROTOCOL` for descriptions that cannot be.
 */
export function parseTargetDescription(documents: readonly string[]): Map<string, GdbRegister> {
  const registers = new Map<string, GdbRegister>()
  let next = 0
  for (const xml of documents) {
    for (const [element] of xml.replace(COMMENT, '').matchAll(/<reg\s[^>]*>/g)) {
      const name = attribute(element, 'name')
      const bits = Number(attribute(element, 'bitsize'))
      const number = Number(attribute(element, 'regnum') ?? next)
      if (!name || !Number.isInteger(bits) || bits <= 0 || bits > 65_536 || !Number.isInteger(number)) {
        throw new MicrovmiError('PROTOCOL', `the gdbstub describes a register that cannot be: ${element.slice(0, 120)}`)
      }
      if (number < 0 || number >= REGISTER_LIMIT || registers.has(name)) {
        throw new MicrovmiError('PROTOCOL', `the gdbstub describes too many registers, or ${name} twice`)
      }
      registers.set(name, { name, number, bits })
      next = number + 1
    }
  }
  return registers
}

function attribute(element: string, name: string): string | undefined {
  return new RegExp(`\\s${name}="([^"]*)"`).exec(element)?.[1]
}
