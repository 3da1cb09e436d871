import { type EventKinds, pageFrame } from '@microvmi/core/driver'
import type { Point } from '../breakpoints.ts'
import { POINT } from '../gdb.ts'
import type { Debugger, Sight, Stop, Watcher } from './watcher.ts'

const TYPES = { r: POINT.read, w: POINT.write, rw: POINT.access } as const

/** `watchpoint`: an access to a few bytes at a virtual address. */
export class WatchpointWatcher implements Watcher {
  readonly #request: EventKinds['watchpoint']['request']
  #point: Point | undefined

  constructor(request: EventKinds['watchpoint']['request']) {
    this.#request = request
  }

  arm(debugging: Debugger): void {
    const { address, length, access } = this.#request
    this.#point = debugging.points.insert(debugging, { type: TYPES[access], address, length }, this)
  }

  disarm(debugging: Debugger): void {
    if (this.#point) debugging.points.remove(debugging, this.#point, this)
  }

  see({ watch, bytes }: Stop, { layout, vcpuCount }: Debugger): Sight<'watchpoint'> | undefined {
    const { addressSpace } = this.#request
    if (!watch) return undefined
    if (addressSpace !== undefined && pageFrame(addressSpace) !== pageFrame(layout.word(bytes, 'cr3'))) return undefined
    // QEMU keeps one hit per VM: where two vCPUs have one each at the same time, one is lost.
    return { kind: 'watchpoint', complete: vcpuCount === 1, fields: { address: watch.address, access: watch.access } }
  }
}
