import type { DumpProgress } from '@microvmi/dump'
import type { Io } from './io.ts'
import { size } from './table.ts'

/** Shows how far a dump is. */
export interface Progress {
  update(progress: DumpProgress): void
  stop(): void
}

const PLAIN_INTERVAL = 2000

/** A bar with rate and time left on a terminal; elsewhere a line every two seconds. On stderr, as it is no result. */
export async function progressOn(io: Io): Promise<Progress> {
  return io.stderr.isTTY ? bar(io) : lines(io)
}

async function bar(io: Io): Promise<Progress> {
  // Only a terminal pays for loading it.
  const { default: library } = await import('cli-progress')
  const shown = new library.SingleBar(
    {
      stream: io.stderr as NodeJS.WritableStream,
      format: '{bar} {percentage}%  {done} of {all}  {rate}/s  {left} left',
      hideCursor: true,
      clearOnComplete: true,
    },
    library.Presets.shades_classic,
  )
  let isStarted = false
  return {
    update(progress) {
      if (!isStarted) shown.start(progress.total, 0, payload(progress))
      isStarted = true
      shown.update(progress.done, payload(progress))
    },
    stop() {
      if (isStarted) shown.stop()
    },
  }
}

function lines(io: Io): Progress {
  let told = 0
  return {
    update(progress) {
      if (progress.elapsed - told < PLAIN_INTERVAL) return
      told = progress.elapsed
      const { done, all, rate, left } = payload(progress)
      io.stderr.write(`${done} of ${all}, ${rate}/s, ${left} left\n`)
    },
    stop() {},
  }
}

function payload({ done, total, elapsed }: DumpProgress) {
  const perSecond = elapsed > 0 ? (done / elapsed) * 1000 : 0
  const seconds = perSecond > 0 ? Math.ceil((total - done) / perSecond) : 0
  const left = seconds >= 60 ? `${Math.floor(seconds / 60)} min ${seconds % 60} s` : `${seconds} s`
  return { done: size(done), all: size(total), rate: size(Math.round(perSecond)), left }
}
