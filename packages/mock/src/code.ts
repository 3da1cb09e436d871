import { decode, LONGEST, lengthOf } from './instructions.ts'
import type { Mmu } from './mmu.ts'
import { emptyTranslation, walk } from './page-tables.ts'
import type { Platform } from './platform.ts'
import type { Vcpu } from './vcpu.ts'

const PAGE = 4096

/** The instruction at a vCPU's rip, where its bytes cannot be taken as they lie in one page. */
export class Code {
  readonly #vcpu: Vcpu
  readonly #mmu: Mmu
  readonly #platform: Platform
  readonly #bytes = new Uint8Array(2 * LONGEST)
  readonly #view = new DataView(this.#bytes.buffer)
  readonly #found = emptyTranslation()

  constructor(vcpu: Vcpu, mmu: Mmu, platform: Platform) {
    this.#vcpu = vcpu
    this.#mmu = mmu
    this.#platform = platform
  }

  /**
   * A copy, from the copy's start: what introspection gives in its place, what goes on in the next page, without our
   * breakpoints where the vCPU is let past them. Throws as any access.
   */
  copy(): DataView {
    const { pass, rip } = this.#vcpu
    const bytes = this.#bytes.fill(0)
    if (pass?.instruction) {
      bytes.set(pass.instruction.subarray(0, LONGEST))
      return this.#view
    }
    const inPage = Math.min(LONGEST, PAGE - (rip & 0xfff))
    this.#copyFrom(rip, 0, inPage)
    if (inPage < LONGEST && !decode(bytes.subarray(0, inPage))) this.#copyFrom(rip + inPage, inPage, LONGEST - inPage)
    return this.#view
  }

  /** The breakpoints at rip: undefined when the int3 there is none of ours, empty when they are for other spaces. */
  breakpoints(): number[] | undefined {
    const { breakpoints } = this.#platform
    if (breakpoints.patches.size === 0) return undefined
    const { rip, root } = this.#vcpu
    const shown = this.#physical(rip)
    if (shown === undefined || breakpoints.patches.original(shown) === undefined) return undefined
    return breakpoints.at(rip, this.#found.physical, root)
  }

  /** How many bytes it has, without any access that could stop; 1 for what is no instruction. */
  length(): number {
    const { memory, breakpoints } = this.#platform
    const bytes = new Uint8Array(LONGEST)
    for (const index of bytes.keys()) {
      const physical = this.#physical(this.#vcpu.rip + index)
      if (physical === undefined) break
      const inMemory = memory.page(Math.floor(physical / PAGE))?.view.getUint8(physical % PAGE)
      bytes[index] = breakpoints.patches.original(physical) ?? inMemory ?? 0xff
    }
    const instruction = decode(bytes)
    return instruction ? lengthOf(instruction) : 1
  }

  #copyFrom(virtual: number, to: number, length: number): void {
    const { view, frame } = this.#mmu.code(virtual)
    const offset = virtual & 0xfff
    const into = this.#bytes.subarray(to, to + length)
    into.set(new Uint8Array(view.buffer, view.byteOffset + offset, length))
    if (this.#vcpu.pastBreakpoints) this.#platform.breakpoints.patches.hide(frame * PAGE + offset, into)
  }

  /** Where a byte is, in the vCPU's view; undefined where nothing is mapped. */
  #physical(virtual: number): number | undefined {
    const { memory, views } = this.#platform
    if (!walk(memory, this.#vcpu.root, virtual, this.#found)) return undefined
    const { physical } = this.#found
    return views.shown(Math.floor(physical / PAGE), this.#vcpu.view) * PAGE + (physical % PAGE)
  }
}
