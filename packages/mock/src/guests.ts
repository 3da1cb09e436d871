import { MicrovmiError } from '@microvmi/core/driver'
import type { Host } from './host.ts'

/** The guests that were made in this process. */
export const guests = new Set<Host>()

/** The guest of a name or an id; undefined for none. Throws `VM_AMBIGUOUS`. */
export function findGuest(vm: string): Host | undefined {
  const found = [...guests].filter((host) => host.id === vm || host.options.name === vm)
  if (found.length < 2) return found[0]
  const ids = found.map(({ id }) => id).join(', ')
  throw new MicrovmiError('VM_AMBIGUOUS', `several guests are called '${vm}': open one by its id: ${ids}`)
}
