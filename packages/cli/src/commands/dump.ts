import { type DumpResult, dumpMemory } from '@microvmi/dump'
import type { Io } from '../io.ts'
import { printJson } from '../json.ts'
import { progressOn } from '../progress.ts'
import { type OpenFlags, withVm } from '../session.ts'
import { size } from '../table.ts'

/** `microvmi dump TARGET FILE` */
export function dumpCommand(
  io: Io,
  target: string,
  file: string,
  flags: OpenFlags & {
    readonly json?: boolean
    readonly sparse: boolean
    readonly pause: boolean
    readonly overwrite?: boolean
    readonly sha256?: boolean
  },
): Promise<void> {
  return withVm(io, target, flags, ['memory.read', 'memory.regions'], async (vm, signal) => {
    const progress = await progressOn(io)
    let result: DumpResult
    try {
      result = await dumpMemory(vm, file === '-' ? io.stdout : file, {
        sparse: flags.sparse,
        pause: flags.pause,
        overwrite: flags.overwrite ?? false,
        sha256: flags.sha256 ?? false,
        signal,
        onProgress: (state) => progress.update(state),
      })
    } finally {
      progress.stop()
    }
    if (flags.json && file !== '-') return printJson(io, { file, ...result })
    const { length, written, elapsed, sha256 } = result
    const rate = size(Math.round((length / elapsed) * 1000))
    io.stderr.write(
      `${file}: ${size(length)} (${size(written)} on disk) in ${(elapsed / 1000).toFixed(2)} s, ${rate}/s\n`,
    )
    if (sha256) (file === '-' ? io.stderr : io.stdout).write(`${sha256}  ${file}\n`)
  })
}
