import { win32 } from 'node:path'
import { badArgument, MicrovmiError } from '@microvmi/core/driver'

/** The files of a saved state: one `.vmrs` (since Windows Server 2016), or a `.bin` and a `.vsv`. */
export type SavedFiles = { readonly vmrs: string } | { readonly bin: string; readonly vsv: string }

/** What LocateSavedStateFiles gives: the empty text where a VM has no such file. */
export interface LocatedFiles {
  readonly bin: string
  readonly vsv: string
  readonly vmrs: string
}

/** Windows takes no longer path (winnt.h, UNICODE_STRING_MAX_CHARS). */
const LONGEST = 32_767

/**
 * The files that a path names, without a look at the disk: a `.vmrs`, or a `.bin` or `.vsv` with the other one beside
 * it. `undefined` for what is no such path, a VM's name then.
 */
export function filesOfPath(path: string): SavedFiles | undefined {
  const extension = win32.extname(path).toLowerCase()
  if (extension === '.vmrs') return { vmrs: win32.resolve(path) }
  if (extension !== '.bin' && extension !== '.vsv') return undefined
  const stem = win32.resolve(path).slice(0, -extension.length)
  return { bin: `${stem}.bin`, vsv: `${stem}.vsv` }
}

/** The files to load of those that were found for a VM. Throws `VM_NOT_FOUND` where it has no saved state. */
export function filesOfVm(vm: string, { bin, vsv, vmrs }: LocatedFiles): SavedFiles {
  if (vmrs !== '') return { vmrs }
  if (bin !== '' && vsv !== '') return { bin, vsv }
  throw new MicrovmiError(
    'VM_NOT_FOUND',
    `'${shortened(vm)}' has no saved state: save the VM, or give the path of a .vmrs file, or of a .bin with its .vsv`,
  )
}

/** Throws `BAD_ARGUMENT` for what would be cut at a zero, and `VM_NOT_FOUND` for what no VM is called. */
export function checkName(vm: string): void {
  if (vm.includes('\0')) throw badArgument('the name or path of a VM has a zero character in it')
  if (vm.trim() === '' || vm.length > LONGEST) {
    throw new MicrovmiError('VM_NOT_FOUND', `no VM or file is called '${shortened(vm)}'`)
  }
}

/** Names come from outside: a message has their beginning. */
export function shortened(name: string): string {
  const characters = [...name]
  return characters.length > 80 ? `${characters.slice(0, 80).join('')}…` : name
}
