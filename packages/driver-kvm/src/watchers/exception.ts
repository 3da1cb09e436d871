import { MicrovmiError } from '@microvmi/core/driver'
import type { Point } from '../breakpoints.ts'
import { POINT } from '../gdb.ts'
import type { Debugger, Sight, Stop, Watcher } from './watcher.ts'

/** Bytes in a gate descriptor of long mode (Intel SDM volume 3A, figure 6-8). */
const GATE_LENGTH = 16n
const GATE_PRESENT = 0x80
const INT3 = 0xcc
const INT = 0xcd

/**
 * An exception of the guest's, seen by a breakpoint on the guest's own handler: QEMU delivers it first. The event's
 * registers are those at the handler's first instruction.
 */
abstract class ExceptionWatcher implements Watcher {
  readonly #vector: bigint
  readonly #name: string
  #points: Point[] = []

  constructor(vector: bigint, name: string) {
    this.#vector = vector
    this.#name = name
  }

  arm(debugging: Debugger): void {
    const { points, vcpuCount } = debugging
    const handlers = new Set<bigint>()
    for (let vcpu = 0; vcpu < vcpuCount; vcpu++) {
      const handler = this.#handler(vcpu, debugging)
      if (handler !== undefined) handlers.add(handler)
    }
    if (handlers.size === 0) {
      throw new MicrovmiError(
        'UNSUPPORTED',
        `the guest has no handler of ${this.#name} in long mode yet: try again once it has booted`,
      )
    }
    try {
      for (const address of handlers) {
        this.#points.push(
          points.insert(debugging, { type: POINT.hardware, address, length: 1, orSoftware: true }, this),
        )
      }
    } catch (error) {
      this.disarm(debugging)
      throw error
    }
  }

  disarm(debugging: Debugger): void {
    for (const point of this.#points.splice(0)) debugging.points.remove(debugging, point, this)
  }

  see(stop: Stop, debugging: Debugger): Sight | undefined {
    const { layout, code } = debugging
    const registers = layout.registers(stop.bytes)
    // Without an error code, the processor pushes rip last (Intel SDM volume 3A, figure 6-9).
    const frame = code.read(registers, registers.rsp, 8)
    if (frame.length < 8) return undefined
    const returnsTo = Buffer.from(frame).readBigUInt64LE()
    return this.sightOf(returnsTo, (address, length) => code.read(registers, address, length), stop, debugging)
  }

  /** @param returnsTo where the guest's handler would return to */
  protected abstract sightOf(
    returnsTo: bigint,
    read: (address: bigint, length: number) => Uint8Array,
    stop: Stop,
    debugging: Debugger,
  ): Sight

  #handler(vcpu: number, { gdb, layout, code, registers }: Debugger): bigint | undefined {
    const { idt } = registers(vcpu)
    if (!idt || BigInt(idt.limit ?? 0) < this.#vector * GATE_LENGTH + GATE_LENGTH - 1n) return undefined
    gdb.select(vcpu)
    const bytes = code.read(layout.registers(gdb.readAll()), idt.base + this.#vector * GATE_LENGTH, Number(GATE_LENGTH))
    if (bytes.length < Number(GATE_LENGTH)) return undefined
    const gate = Buffer.from(bytes)
    if ((gate.readUInt8(5) & GATE_PRESENT) === 0) return undefined
    return BigInt(gate.readUInt16LE(0)) | (BigInt(gate.readUInt16LE(6)) << 16n) | (BigInt(gate.readUInt32LE(8)) << 32n)
  }
}

/** `int3`: the guest's own breakpoint instruction. */
export class Int3Watcher extends ExceptionWatcher {
  constructor() {
    super(3n, '#BP')
  }

  protected sightOf(returnsTo: bigint, read: (address: bigint, length: number) => Uint8Array): Sight<'int3'> {
    const [first, second] = read(BigInt.asUintN(64, returnsTo - 2n), 2)
    const length = second === INT3 ? 1 : first === INT && second === 3 ? 2 : undefined
    return { kind: 'int3', complete: false, fields: { address: returnsTo - BigInt(length ?? 1), length } }
  }
}

/** `debug`: a debug exception of the guest. */
export class DebugExceptionWatcher extends ExceptionWatcher {
  constructor() {
    super(1n, '#DB')
  }

  protected sightOf(
    returnsTo: bigint,
    _read: (address: bigint, length: number) => Uint8Array,
    { vcpu }: Stop,
    { registers }: Debugger,
  ): Sight<'debug'> {
    return { kind: 'debug', complete: false, fields: { address: returnsTo, dr6: registers(vcpu).dr6 } }
  }
}
