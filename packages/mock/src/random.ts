/**
 * Repeatable pseudo-random numbers: the same seed gives the same sequence on every platform.
 *
 * Marsaglia's xorshift128 ("Xorshift RNGs", Journal of Statistical Software 8(14), 2003, page 5), started from one
 * number through the finalizer of MurmurHash3.
 */
export class Random {
  #x: number
  #y: number
  #z: number
  #w: number

  constructor(seed: number) {
    this.#x = mix(seed)
    this.#y = mix(this.#x + 0x9e37_79b9)
    this.#z = mix(this.#y + 0x9e37_79b9)
    // The state must not be all zero.
    this.#w = mix(this.#z + 0x9e37_79b9) | 1
  }

  /** 0 to 2^32 - 1. */
  next(): number {
    const t = this.#x ^ (this.#x << 11)
    this.#x = this.#y
    this.#y = this.#z
    this.#z = this.#w
    this.#w = this.#w ^ (this.#w >>> 19) ^ t ^ (t >>> 8)
    return this.#w >>> 0
  }

  /** From `least` to `most`, both included. */
  between(least: number, most: number): number {
    return least + (this.next() % (most - least + 1))
  }
}

function mix(value: number): number {
  let hash = value | 0
  hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35)
  return hash ^ (hash >>> 16)
}
