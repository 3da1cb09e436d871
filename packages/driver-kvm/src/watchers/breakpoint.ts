import { type EventKinds, MicrovmiError, pageFrame } from '@microvmi/core/driver'
import type { Point } from '../breakpoints.ts'
import { POINT } from '../gdb.ts'
import type { Debugger, Sight, Stop, Watcher } from './watcher.ts'

/** `breakpoint`: an instruction at a virtual address. */
export class BreakpointWatcher implements Watcher {
  readonly #address: bigint
  readonly #method: 'hardware' | 'software' | undefined
  readonly #addressSpace: bigint | undefined
  #point: Point | undefined

  constructor(request: EventKinds['breakpoint']['request']) {
    if (!('address' in request)) {
      throw new MicrovmiError(
        'UNSUPPORTED',
        'QEMU knows breakpoints by virtual addresses only: give `address`, and `addressSpace` for one process',
      )
    }
    this.#address = request.address
    this.#method = request.method
    this.#addressSpace = request.addressSpace
  }

  arm(debugging: Debugger): void {
    const request = { address: this.#address, length: 1, cr3: this.#addressSpace }
    this.#point =
      this.#method === 'software'
        ? debugging.points.insert(debugging, { ...request, type: POINT.software }, this)
        : debugging.points.insert(
            debugging,
            { ...request, type: POINT.hardware, orSoftware: this.#method === undefined },
            this,
          )
  }

  disarm(debugging: Debugger): void {
    if (this.#point) debugging.points.remove(debugging, this.#point, this)
  }

  see({ rip, bytes }: Stop, { layout }: Debugger): Sight<'breakpoint'> | undefined {
    const space = this.#addressSpace
    if (space !== undefined && pageFrame(space) !== pageFrame(layout.word(bytes, 'cr3'))) return undefined
    return { kind: 'breakpoint', complete: true, fields: { address: rip } }
  }
}
