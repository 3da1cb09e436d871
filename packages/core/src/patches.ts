/**
 * Bytes that a backend has put into guest memory for its own ends (its breakpoints), with what the guest had there.
 * Core hides them: reads and dumps show the guest's bytes, writes change what will be restored.
 */
export class Patches {
  readonly #bytes = new Map<number, { original: number; readonly patched: number }>()

  /** How many bytes are patched now. */
  get size(): number {
    return this.#bytes.size
  }

  /** Notes that the guest's `original` byte at a guest-physical address was replaced by `patched`. */
  add(address: number, original: number, patched: number): void {
    this.#bytes.set(address, { original, patched })
  }

  /**
   * The guest's own byte at a patched address: what to put back, where the patched one still is. `undefined` where
   * nothing is patched.
   */
  original(address: number): number | undefined {
    return this.#bytes.get(address)?.original
  }

  /** Forgets the patch at an address, after the byte was put back. */
  remove(address: number): void {
    this.#bytes.delete(address)
  }

  /** The patched addresses. */
  addresses(): IterableIterator<number> {
    return this.#bytes.keys()
  }

  /** Whether a patched byte is in the range. */
  touches(address: number, length: number): boolean {
    for (const patched of this.#bytes.keys()) {
      if (patched >= address && patched < address + length) return true
    }
    return false
  }

  /** Puts the guest's own bytes in place of ours in `bytes`, which was read from `address`, where ours still are. */
  hide(address: number, bytes: Uint8Array): void {
    for (const [where, { original, patched }] of this.#bytes) {
      if (bytes[where - address] === patched) bytes[where - address] = original
    }
  }

  /**
   * What to write so that `bytes` become the guest's and our patches stay: a copy with the patched bytes in it.
   * `commit` notes the guest's new bytes; call it when the write has succeeded.
   */
  preserve(address: number, bytes: Uint8Array): { readonly bytes: Uint8Array; commit(): void } {
    const copy = bytes.slice()
    const within = [...this.#bytes].filter(([patched]) => patched >= address && patched < address + bytes.length)
    for (const [patched, byte] of within) copy[patched - address] = byte.patched
    const commit = () => {
      for (const [patched, byte] of within) byte.original = bytes[patched - address] ?? byte.original
    }
    return { bytes: copy, commit }
  }
}
