import { MicrovmiError } from '@microvmi/core/driver'
import { failed, hresultError } from '../errors.ts'
import { VALUE_SIZE } from '../register-layout.ts'
import { withLowPage } from './low-page.ts'
import { ARCHITECTURE_X64, type Provider } from './provider.ts'
import { CR0, OLD_CR0 } from './register-ids.ts'

/** Which SDK's library: `17763`, the first, has other registers and another GetRegisterValue than those since. */
export type Generation = 'current' | '17763'

/**
 * VmSavedStateDumpDefs.h of SDK 10.0.17763, VIRTUAL_PROCESSOR_REGISTER: the only argument of GetRegisterValue behind
 * the vCPU. Architecture at 0, the value at 8, the register's number at 16.
 */
export const OLD_VALUE = { size: 24, architecture: 0, value: 8, id: 16 } as const

/** What no CR0 holds: bits 63 to 32 are reserved and zero (Intel SDM volume 3A, 2.5). */
const UNTOUCHED = 0xa5a5_a5a5_5a5a_5a5an

/**
 * Tells the library's generation by one call that is right for both. Its third argument is the address of the old
 * structure, asking for CR0, at such a place that its low 32 bits are the current number of CR0; the fourth, which the
 * old library ignores, is the current structure. Which of the two CR0 arrives in tells.
 */
export function generationOf(provider: Provider, state: bigint): Generation {
  return withLowPage((page) => {
    const old = new DataView(new ArrayBuffer(OLD_VALUE.size))
    old.setInt32(OLD_VALUE.architecture, ARCHITECTURE_X64, true)
    old.setBigUint64(OLD_VALUE.value, UNTOUCHED, true)
    old.setUint32(OLD_VALUE.id, OLD_CR0, true)
    page.write(CR0, new Uint8Array(old.buffer))
    const current = new DataView(new ArrayBuffer(VALUE_SIZE))
    current.setBigUint64(0, UNTOUCHED, true)
    const bytes = new Uint8Array(current.buffer)
    const result = provider.result('GetRegisterValue', state, 0, page.address + BigInt(CR0), bytes)
    if (failed(result)) throw hresultError('GetRegisterValue', result)
    page.read(CR0, new Uint8Array(old.buffer))
    const isCurrent = current.getBigUint64(0, true) !== UNTOUCHED
    const isOld = old.getBigUint64(OLD_VALUE.value, true) !== UNTOUCHED
    if (isCurrent !== isOld) return isCurrent ? 'current' : '17763'
    throw new MicrovmiError(
      'PROTOCOL',
      `${provider.path} gives registers in a way that is not known here: use the one of Windows SDK 10.0.18362 or newer`,
    )
  })
}
