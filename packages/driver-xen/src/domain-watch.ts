import type { Watch } from './library-calls.ts'
import type { Xen } from './xen.ts'
import { failed } from './xen-errors.ts'

/**
 * Tells when a domain has been released: the event channel of a destroyed domain is silent, the xenstore's special
 * watch is not (xenstore.txt, "@releaseDomain").
 */
export class DomainWatch {
  readonly #xen: Xen
  readonly #store: number
  readonly #watch: Watch

  /** @param released called on the event loop, whichever domain it was */
  constructor(xen: Xen, released: () => void) {
    const { xs, koffi } = xen.libraries
    this.#xen = xen
    this.#store = Number(xs.open(0))
    if (this.#store === 0 || !xs.watch(this.#store, '@releaseDomain', 'microvmi')) {
      const error = failed('xs_watch', 'the end of domains cannot be watched')
      if (this.#store !== 0) xs.close(this.#store)
      throw error
    }
    this.#watch = koffi.node.poll(xs.fileno(this.#store), { readable: true }, () => {
      this.#takeAll()
      released()
    })
    this.#watch.unref()
  }

  close(): void {
    this.#watch.close()
    this.#xen.libraries.xs.close(this.#store)
  }

  #takeAll(): void {
    const { xs, libc } = this.#xen.libraries
    for (let found = Number(xs.check_watch(this.#store)); found !== 0; found = Number(xs.check_watch(this.#store))) {
      libc.free(found)
    }
  }
}
