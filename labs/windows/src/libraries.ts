import { fileURLToPath } from 'node:url'
import { compiled } from './mingw.ts'

const directory = fileURLToPath(new URL('../stand-ins', import.meta.url))

/** The libraries and programs that stand in for Hyper-V's; where they are. */
export function hyperVLibraries(): Promise<string> {
  return compiled(directory, [
    { name: 'VmSavedStateDumpProvider.dll', sources: ['saved-state.c', 'guest.c'] },
    { name: 'old/VmSavedStateDumpProvider.dll', sources: ['saved-state.c', 'guest.c'], flags: ['-DOLD_SDK'] },
    { name: 'hvlib.dll', sources: ['hvlib.c', 'guest.c'] },
    { name: 'vid.dll', sources: ['vid.c', 'guest.c'] },
    { name: 'vmwp.exe', sources: ['worker.c', 'guest.c'] },
  ])
}
