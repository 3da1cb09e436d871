import { existsSync } from 'node:fs'
import { MicrovmiError } from '@microvmi/core/driver'
import { failed, hresultError } from '../errors.ts'
import { ownedText } from '../native.ts'
import type { Provider } from './provider.ts'
import { filesOfPath, filesOfVm, type SavedFiles, shortened } from './saved-files.ts'

/** winerror.h: what LocateSavedStateFiles answers for a VM that there is not. */
const NOT_FOUND: ReadonlySet<number> = new Set([0x8007_0002, 0x8007_0003, 0x8007_0490])

/** The files of a VM by its name, or by a path. */
export function filesOf(provider: Provider, vm: string, snapshot: string | undefined): SavedFiles {
  const files = filesOfPath(vm)
  if (files === undefined) return located(provider, vm, snapshot)
  for (const file of Object.values(files)) {
    if (existsSync(file)) continue
    throw new MicrovmiError(
      'VM_NOT_FOUND',
      `there is no file ${shortened(file)}: check the path, and the right to read`,
    )
  }
  return files
}

/** Loads a saved state; the handle is the caller's, who ends it with `ReleaseSavedStateFiles`. */
export function loaded(provider: Provider, files: SavedFiles): bigint {
  const state = new BigUint64Array(1)
  if ('vmrs' in files) provider.call('LoadSavedStateFile', files.vmrs, state)
  else provider.call('LoadSavedStateFiles', files.bin, files.vsv, state)
  const [handle = 0n] = state
  if (handle === 0n) throw new MicrovmiError('PROTOCOL', `${provider.path} loaded the saved state, but gave no handle`)
  return handle
}

function located(provider: Provider, vm: string, snapshot: string | undefined): SavedFiles {
  const [bin, vsv, vmrs] = [new BigUint64Array(1), new BigUint64Array(1), new BigUint64Array(1)]
  const result = provider.result('LocateSavedStateFiles', vm, snapshot ?? null, bin, vsv, vmrs)
  if (failed(result)) {
    const of = snapshot === undefined ? '' : ` with a snapshot '${shortened(snapshot)}'`
    if (!NOT_FOUND.has(result >>> 0)) throw hresultError('LocateSavedStateFiles', result)
    throw new MicrovmiError(
      'VM_NOT_FOUND',
      `Hyper-V has no VM '${shortened(vm)}'${of}: check the name, or give the path of a .vmrs file`,
      { cause: hresultError('LocateSavedStateFiles', result) },
    )
  }
  return filesOfVm(vm, {
    bin: ownedText(bin[0] ?? 0n),
    vsv: ownedText(vsv[0] ?? 0n),
    vmrs: ownedText(vmrs[0] ?? 0n),
  })
}
