import { MicrovmiError } from '@microvmi/core/driver'
import { encodePacket, PacketReader } from './gdb-packet.ts'
import { Socket } from './socket.ts'
import { type GdbRegister, includesOf, parseTargetDescription } from './target-description.ts'

/** A target description's documents are some KiB; QEMU's have at most one level of includes. */
const DOCUMENT_LIMIT = 2 ** 20
const DOCUMENTS_LIMIT = 32
const READ_LENGTH = 0x800

/**
 * A connection to QEMU's gdbstub, for a VM that is stopped already (connecting stops one that runs). Nothing is ever
 * acknowledged: QEMU takes the next packet for it, and an acknowledgement while the VM runs would stop it.
 */
export class Gdb {
  readonly #socket: Socket
  readonly #timeout: number
  readonly #packets = new PacketReader()
  #registers: Map<string, GdbRegister> | undefined

  constructor(path: string, timeout: number) {
    this.#socket = new Socket(path, 'the gdbstub')
    this.#timeout = timeout
    try {
      const features = this.#greet()
      if (!features.includes('qXfer:features:read+')) {
        throw new MicrovmiError('PROTOCOL', 'the gdbstub does not describe its registers')
      }
    } catch (error) {
      this.#socket.close()
      throw error
    }
  }

  /** The registers that the stub describes, by name. Has to be asked before `p` and `P` answer. */
  registers(): Map<string, GdbRegister> {
    if (this.#registers) return this.#registers
    const names = ['target.xml']
    const documents: string[] = []
    for (const name of names) {
      if (documents.length === DOCUMENTS_LIMIT) {
        throw new MicrovmiError('PROTOCOL', `the gdbstub's description has over ${DOCUMENTS_LIMIT} documents`)
      }
      const document = this.#document(name)
      documents.push(document)
      names.push(...includesOf(document))
    }
    this.#registers = parseTargetDescription(documents)
    return this.#registers
  }

  /** Makes a vCPU the one that `read` and `write` are about. */
  select(vcpu: number): void {
    // Thread ids of QEMU's are the vCPU's number plus one (gdbstub.c, gdb_get_cpu_index).
    const id = (vcpu + 1).toString(16)
    const answer = this.#ask(`Hgp1.${id}`)
    if (answer !== 'OK') throw refused(`vCPU ${vcpu}`, answer)
  }

  /** The selected vCPU's register. */
  read({ name, number, bits }: GdbRegister): bigint {
    const answer = this.#ask(`p${number.toString(16)}`)
    if (answer.length !== bits / 4 || !/^[0-9a-f]+$/.test(answer)) throw refused(`register ${name}`, answer)
    return BigInt(`0x${Buffer.from(answer, 'hex').reverse().toString('hex')}`)
  }

  /** Sets the selected vCPU's register. The width must be right: QEMU takes fewer digits and writes garbage. */
  write({ name, number, bits }: GdbRegister, value: bigint): void {
    if (BigInt.asUintN(bits, value) !== value) {
      throw new MicrovmiError('BAD_ARGUMENT', `register ${name} has ${bits} bits: 0x${value.toString(16)} does not fit`)
    }
    const digits = Buffer.from(value.toString(16).padStart(bits / 4, '0'), 'hex')
      .reverse()
      .toString('hex')
    const answer = this.#ask(`P${number.toString(16)}=${digits}`)
    if (answer !== 'OK') throw refused(`register ${name}`, answer)
  }

  /** Leaves without `D`: that would resume the VM. */
  close(): void {
    this.#socket.close()
  }

  #greet(): string {
    try {
      let answer = this.#ask('qSupported:multiprocess+;xmlRegisters=i386')
      // A stub of a VM that ran tells first that connecting has stopped it.
      while (/^[TS]/.test(answer)) answer = this.#next(performance.now() + this.#timeout)
      return answer
    } catch (error) {
      if (!(error instanceof MicrovmiError) || error.code !== 'TIMEOUT') throw error
      throw new MicrovmiError('BUSY', `the gdbstub at ${this.#socket.path} does not answer: another client holds it`)
    }
  }

  #document(name: string): string {
    let text = ''
    for (;;) {
      const part = this.#ask(`qXfer:features:read:${name}:${text.length.toString(16)},${READ_LENGTH.toString(16)}`)
      text += part.slice(1)
      if (part.startsWith('l')) return text
      if (!part.startsWith('m') || part.length < 2) throw refused(`document ${name}`, part)
      if (text.length > DOCUMENT_LIMIT) {
        throw new MicrovmiError('PROTOCOL', `the gdbstub's ${name} has over ${DOCUMENT_LIMIT} characters`)
      }
    }
  }

  #ask(data: string): string {
    const deadline = performance.now() + this.#timeout
    this.#socket.send(Buffer.from(encodePacket(data), 'latin1'), deadline)
    return this.#next(deadline)
  }

  #next(deadline: number): string {
    for (;;) {
      const packet = this.#packets.next()
      if (packet !== undefined) return packet
      this.#packets.push(this.#socket.receive(deadline))
    }
  }
}

function refused(what: string, answer: string): MicrovmiError {
  return new MicrovmiError('PROTOCOL', `the gdbstub answers '${answer.slice(0, 40)}' for ${what}`)
}
