const PAGE = 4096

/** Page addresses below `size`: the generator of baselines/timing.h. */
export function randomPages(count: number, size: number): Float64Array {
  let state = 1
  return Float64Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return ((state >>> 8) % (size / PAGE)) * PAGE
  })
}
