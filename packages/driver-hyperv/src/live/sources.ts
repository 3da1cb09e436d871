import { MicrovmiError } from '@microvmi/core/driver'
import { libraryPath, places, systemLibraryPath } from '../library-path.ts'
import { WHERE_FROM } from './hvlib/native.ts'
import { HvlibSource } from './hvlib/source.ts'
import type { PartitionName, PartitionSource, Way } from './partition.ts'
import { VidSource } from './vid/source.ts'

/** Where the libraries are. */
export interface SourceOptions {
  /** Path of hvlib.dll, or of its directory. Default: beside the app, or in PATH. */
  readonly hvlib?: string
  /** Path of vid.dll, where not Windows' own is wanted. */
  readonly vid?: string
}

/** A way in that works here, and what it sees. */
export interface WorkingSource {
  readonly source: PartitionSource
  readonly partitions: readonly PartitionName[]
}

/** hvlib first: it works on all versions of Windows. */
const WAYS: readonly Way[] = ['hvlib', 'vid']

/**
 * The first way that can list partitions, or the one that is wanted. Throws what keeps each of them from working.
 *
 * @param timeout milliseconds that a partition may take to stop
 */
export function firstWorking(options: SourceOptions, wanted: Way | undefined, timeout: number): WorkingSource {
  const failures: MicrovmiError[] = []
  for (const way of wanted === undefined ? WAYS : [wanted]) {
    try {
      const source = sourceOf(way, options, timeout)
      return { source, partitions: source.list() }
    } catch (error) {
      if (!(error instanceof MicrovmiError)) throw error
      failures.push(error)
    }
  }
  const [first, second] = failures
  if (first === undefined) throw new Error('there is no way to try')
  if (second === undefined) throw first
  // A library that is there and is refused tells more than one that is not there.
  const code = failures.find((failure) => failure.code !== 'DRIVER_UNAVAILABLE')?.code ?? 'DRIVER_UNAVAILABLE'
  throw new MicrovmiError(code, `hvlib: ${first.message}. vid: ${second.message}`, { cause: first })
}

function sourceOf(way: Way, options: SourceOptions, timeout: number): PartitionSource {
  if (way === 'hvlib') {
    const path = libraryPath('hvlib.dll', options.hvlib, places())
    if (path === undefined) {
      throw new MicrovmiError(
        'DRIVER_UNAVAILABLE',
        `hvlib.dll is neither beside this program nor in PATH. ${WHERE_FROM}`,
      )
    }
    return new HvlibSource(path, timeout)
  }
  const path = systemLibraryPath('vid.dll', options.vid, places())
  if (path === undefined) {
    throw new MicrovmiError('DRIVER_UNAVAILABLE', "there is no vid.dll: turn on Windows' feature Hyper-V, and restart")
  }
  return new VidSource(path, timeout)
}
