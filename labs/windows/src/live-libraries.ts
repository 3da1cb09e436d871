import { fileURLToPath } from 'node:url'
import { compiled } from './mingw.ts'

const directory = fileURLToPath(new URL('../stand-ins', import.meta.url))

/** What stands in for the libraries of live partitions, and for worker processes; where they are. */
export function liveLibraries(): Promise<string> {
  return compiled(directory, [
    { name: 'hvlib.dll', sources: ['hvlib.c', 'guest.c'] },
    { name: 'lacking/hvlib.dll', sources: ['hvlib.c', 'guest.c'], flags: ['-DLACKING'] },
    { name: 'vid.dll', sources: ['vid.c', 'guest.c'] },
    { name: 'nameless/vid.dll', sources: ['vid.c', 'guest.c'], flags: ['-DWITHOUT_NAMES'] },
    { name: 'vmwp.exe', sources: ['worker.c', 'guest.c'] },
  ])
}
