import { MicrovmiError } from '@microvmi/core/driver'
import { encodePacket, PacketReader } from '@microvmi/gdb-packets'
import { Socket } from './socket.ts'
import { parseStopReply, type StopReply } from './stop-reply.ts'
import { type GdbRegister, includesOf, parseTargetDescription } from './target-description.ts'

/** QEMU's packets have at most 4 KiB (gdbstub/gdbstub.c, MAX_PACKET_LENGTH), escapes and run lengths unpacked far less. */
const PACKET_LIMIT = 65_536

/** A target description's documents are some KiB; QEMU's have at most one level of includes. */
const DOCUMENT_LIMIT = 2 ** 20
const DOCUMENTS_LIMIT = 32
const READ_LENGTH = 0x800

/** The types of `Z` and `z` packets (GDB manual, "Packets"). */
export const POINT = { software: 0, hardware: 1, write: 2, read: 3, access: 4 } as const
export type PointType = (typeof POINT)[keyof typeof POINT]

/** What the stub says to a breakpoint or watchpoint. */
export type Inserted = 'inserted' | 'refused' | 'unsupported'

/** A single step of one vCPU, while the others stand still. */
const step = (vcpu: number) => `vCont;s:${thread(vcpu)}`
/** Thread ids of QEMU's are the vCPU's number plus one (gdbstub.c, gdb_get_cpu_index); its only process is 1. */
const thread = (vcpu: number) => `p1.${(vcpu + 1).toString(16)}`
/**
 * An interrupt. The acknowledgement stands for one that the stub may still wait for; both in one piece, since anything
 * that comes alone while the VM runs would stop it.
 */
const INTERRUPT = Buffer.from('+\x03', 'latin1')

/**
 * A connection to QEMU's gdbstub, for a VM that is stopped already (connecting stops one that runs). Nothing is ever
 * acknowledged: QEMU takes the next packet for it, and an acknowledgement while the VM runs would stop it.
 *
 * Everything but `interrupt`, `poll` and `watch` is for a VM that stands still: a packet sent to one that runs stops
 * it, and is lost.
 */
export class Gdb {
  readonly #socket: Socket
  readonly #timeout: number
  readonly #packets = new PacketReader({ stub: 'the gdbstub', limit: PACKET_LIMIT })
  #registers: Map<string, GdbRegister> | undefined
  /** `g` was sent for the selected vCPU since it has stopped. */
  #isSynchronized = false
  /** The vCPU that has stopped last, by the stub's word. */
  #current: number | undefined

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

  /** Makes a vCPU the one that `read`, `readAll` and `write` are about; so does a stop of its own. */
  select(vcpu: number): void {
    const answer = this.#ask(`Hg${thread(vcpu)}`)
    if (answer !== 'OK') throw refused(`vCPU ${vcpu}`, answer)
    this.#isSynchronized = false
  }

  /** The selected vCPU's register. */
  read({ name, number, bits }: GdbRegister): bigint {
    this.#synchronize()
    const answer = this.#ask(`p${number.toString(16)}`)
    if (answer.length !== bits / 4 || !/^[0-9a-f]+$/.test(answer)) throw refused(`register ${name}`, answer)
    return BigInt(`0x${Buffer.from(answer, 'hex').reverse().toString('hex')}`)
  }

  /** All registers of the selected vCPU, packed in the order of their numbers, little endian. */
  readAll(): Buffer {
    const answer = this.#ask('g')
    const bytes = Buffer.from(answer, 'hex')
    this.#isSynchronized = true
    // An error is `E` and two digits; what is no hexadecimal ends Buffer.from's result early.
    if (bytes.length < 4 || bytes.length * 2 !== answer.length) throw refused('the registers', answer)
    return bytes
  }

  /** Sets the selected vCPU's register. The width must be right: QEMU takes fewer digits and writes garbage. */
  write({ name, number, bits }: GdbRegister, value: bigint): void {
    if (BigInt.asUintN(bits, value) !== value) {
      throw new MicrovmiError('BAD_ARGUMENT', `register ${name} has ${bits} bits: 0x${value.toString(16)} does not fit`)
    }
    this.#synchronize()
    const digits = Buffer.from(value.toString(16).padStart(bits / 4, '0'), 'hex')
      .reverse()
      .toString('hex')
    const answer = this.#ask(`P${number.toString(16)}=${digits}`)
    if (answer !== 'OK') throw refused(`register ${name}`, answer)
  }

  /** Writes into the selected vCPU's address space, so that QEMU translates changed code anew. */
  writeMemory(address: bigint, bytes: Uint8Array): void {
    const data = Buffer.from(bytes).toString('hex')
    const answer = this.#ask(`M${address.toString(16)},${bytes.length.toString(16)}:${data}`)
    if (answer !== 'OK') throw refused(`${bytes.length} bytes at 0x${address.toString(16)}`, answer)
  }

  /** Sets a breakpoint or watchpoint, on every vCPU. */
  insert(type: PointType, address: bigint, length: number): Inserted {
    return outcome(this.#ask(`Z${type},${address.toString(16)},${length.toString(16)}`))
  }

  /** Takes one out again. */
  remove(type: PointType, address: bigint, length: number): Inserted {
    return outcome(this.#ask(`z${type},${address.toString(16)},${length.toString(16)}`))
  }

  /** Takes every breakpoint and watchpoint of a vCPU out, also those of a client that was killed. */
  removeAll(vcpu: number): void {
    this.#ask(`Hc${thread(vcpu)}`)
    this.#current = vcpu
    // `?` removes the points of the vCPU that is selected for running (gdbstub.c, handle_target_halt).
    const answer = this.#ask('?')
    if (!parseStopReply(answer)) throw refused('the reason of the stop', answer)
  }

  /** Which events a step keeps away from its vCPU (gdbstub.c, SSTEP_*): whether interrupts come in while stepping. */
  letInterruptsIn(during: boolean): void {
    // A host that knows no other way answers E22: then steps are as they are.
    this.#ask(`Qqemu.sstep=${during ? '1' : '7'}`)
  }

  /** Lets all vCPUs run, without waiting. */
  resume(): void {
    this.#send(encodePacket('vCont;c'))
  }

  /**
   * Executes one instruction of a vCPU while the others stand still; `undefined` when that did not end within
   * `patience` milliseconds: the vCPU waits for an interrupt, and the VM runs until `interrupt`.
   */
  step(vcpu: number, patience: number = this.#timeout): StopReply | undefined {
    // A step that is cut off leaves its vCPU in single-step mode, for ever deaf to interrupts, unless it is the
    // current one (gdbstub.c, gdb_vm_state_change).
    if (vcpu === this.#current) {
      this.#send(encodePacket(step(vcpu)))
    } else {
      const answer = this.#next(this.#send(encodePacket(`Hc${thread(vcpu)}`) + encodePacket(step(vcpu))))
      if (answer !== 'OK') throw refused(`vCPU ${vcpu}`, answer)
      this.#current = vcpu
    }
    try {
      return this.#stopped(performance.now() + patience)
    } catch (error) {
      if (patience < this.#timeout && error instanceof MicrovmiError && error.code === 'TIMEOUT') return undefined
      throw error
    }
  }

  /** Stops the VM. What had stopped it just before counts instead. */
  interrupt(): StopReply {
    const deadline = performance.now() + this.#timeout
    this.#socket.send(INTERRUPT, deadline)
    return this.#stopped(deadline)
  }

  /** Why the VM has stopped, if it has since it was resumed. */
  poll(): StopReply | undefined {
    const packet = this.#packets.next()
    if (packet !== undefined) return this.#stopReply(packet)
    const bytes = this.#socket.receiveNow()
    if (bytes.length === 0) return undefined
    this.#packets.push(bytes)
    return this.poll()
  }

  /** Calls back on the event loop when the VM has stopped, or QEMU has hung up. Keeps the process alive. */
  watch(callback: () => void): void {
    this.#socket.watch(callback)
    this.#socket.keepAlive(true)
  }

  /** Leaves without `D`: that would resume the VM. */
  close(): void {
    this.#socket.close()
  }

  /** On KVM only `g` has QEMU fetch the registers from the kernel: `p` reads, and `P` changes, what it has. */
  #synchronize(): void {
    if (!this.#isSynchronized) this.readAll()
  }

  #greet(): string {
    try {
      const deadline = this.#send(encodePacket('qSupported:multiprocess+;xmlRegisters=i386'))
      let answer = this.#next(deadline)
      // A stub of a VM that ran tells first that connecting has stopped it.
      while (/^[TS]/.test(answer)) answer = this.#next(deadline)
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
    const packet = encodePacket(data)
    const answer = this.#next(this.#send(packet))
    // Somebody else had let the VM go on: the packet has stopped it, and was lost with that.
    const wasLost = data !== '?' && /^[TS][0-9a-f]{2}/.test(answer)
    return wasLost ? this.#next(this.#send(packet)) : answer
  }

  /** Returns the deadline of the answer. */
  #send(packet: string): number {
    const deadline = performance.now() + this.#timeout
    this.#socket.send(Buffer.from(packet, 'latin1'), deadline)
    return deadline
  }

  #stopped(deadline: number): StopReply {
    return this.#stopReply(this.#next(deadline))
  }

  #stopReply(packet: string): StopReply {
    const stop = parseStopReply(packet)
    if (stop) {
      this.#current = stop.vcpu
      this.#isSynchronized = false
      return stop
    }
    throw new MicrovmiError('PROTOCOL', `the gdbstub says '${packet.slice(0, 40)}' while the VM runs`)
  }

  #next(deadline: number): string {
    for (;;) {
      const packet = this.#packets.next()
      // `O`: output of the program's, which QEMU's has not, and which means nothing here.
      if (packet !== undefined && !/^O[0-9a-f]/.test(packet)) return packet
      if (packet === undefined) this.#packets.push(this.#socket.receive(deadline))
    }
  }
}

function outcome(answer: string): Inserted {
  if (answer === 'OK') return 'inserted'
  if (answer === '') return 'unsupported'
  if (/^E[0-9a-f]{2}$/i.test(answer)) return 'refused'
  throw refused('a breakpoint', answer)
}

function refused(what: string, answer: string): MicrovmiError {
  return new MicrovmiError('PROTOCOL', `the gdbstub answers '${answer.slice(0, 40)}' for ${what}`)
}
