/** A signal that comes when the time is up, or with one of others. */
export class Deadline implements Disposable {
  readonly #controller = new AbortController()
  readonly #timer: NodeJS.Timeout
  readonly #others: readonly AbortSignal[]
  readonly #end = () => this.#controller.abort()

  /**
   * `AbortSignal.any` would not do: Node 20 loses an `AbortSignal.timeout` that nobody else holds when it collects
   * garbage.
   */
  constructor(milliseconds: number, ...others: AbortSignal[]) {
    this.#timer = setTimeout(this.#end, milliseconds)
    this.#others = others
    for (const other of others) {
      if (other.aborted) this.#end()
      other.addEventListener('abort', this.#end, { once: true })
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
    for (const other of this.#others) other.removeEventListener('abort', this.#end)
  }
}
