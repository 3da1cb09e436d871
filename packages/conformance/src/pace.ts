import { ConformanceError } from './failure.ts'

/** How long the suite waits. All in milliseconds. */
export interface Pace {
  /** For what must happen. */
  readonly patience: number
  /** For what must not. */
  readonly lookout: number
  /** For a whole case. */
  readonly limit: number
  /** How many times longer than on a fast machine that is: for how much work to do. */
  readonly slowness: number
}

const PATIENCE = 5000
const LOOKOUT = 100
const LIMIT = 60_000
const POLL = 2

/** The pace for a fixture that is `slowness` times slower than a fast machine. */
export function paceOf(slowness: number): Pace {
  return { patience: PATIENCE * slowness, lookout: LOOKOUT * slowness, limit: LIMIT * slowness, slowness }
}

/** Lets so many milliseconds pass. */
export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds))
}

/** The result of `work`; rejects with a `ConformanceError` when it takes longer. */
export async function within<T>(work: Promise<T>, milliseconds: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new ConformanceError(`${what} took longer than ${Math.round(milliseconds)} ms`))
    }, milliseconds)
  })
  try {
    return await Promise.race([work, expired])
  } finally {
    clearTimeout(timer)
  }
}

/** Asks `probe` again and again until it says true; false when it has not after so many milliseconds. */
export async function eventually(milliseconds: number, probe: () => boolean | Promise<boolean>): Promise<boolean> {
  for (const end = Date.now() + milliseconds; ; await sleep(POLL)) {
    if (await probe()) return true
    if (Date.now() > end) return false
  }
}
