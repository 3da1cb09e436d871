import { fileURLToPath } from 'node:url'
import { compiled, type Target } from './mingw.ts'

const directory = fileURLToPath(new URL('../stand-ins', import.meta.url))

/** What is built of ../stand-ins, and where each lies. */
const TARGETS: readonly Target[] = [
  { name: 'hvlib.dll', sources: ['hvlib.c', 'guest.c'] },
  { name: 'lacking/hvlib.dll', sources: ['hvlib.c', 'guest.c'], flags: ['-DLACKING'] },
  { name: 'vid.dll', sources: ['vid.c', 'guest.c'] },
  { name: 'nameless/vid.dll', sources: ['vid.c', 'guest.c'], flags: ['-DWITHOUT_NAMES'] },
  { name: 'vmwp.exe', sources: ['worker.c', 'guest.c'] },
  { name: 'lab.dll', sources: ['lab.c'] },
  { name: 'VmSavedStateDumpProvider.dll', sources: ['saved-state.c'] },
  { name: '17763/VmSavedStateDumpProvider.dll', sources: ['saved-state.c'], flags: ['-DOLD_SDK'] },
  { name: 'lacking/VmSavedStateDumpProvider.dll', sources: ['saved-state.c'], flags: ['-DLACKING'] },
]

/** The directory of the libraries and programs that stand in for Windows' own. */
export function libraries(): Promise<string> {
  return compiled(directory, TARGETS)
}
