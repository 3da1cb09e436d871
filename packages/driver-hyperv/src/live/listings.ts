import { MicrovmiError, type VmListing } from '@microvmi/core/driver'
import { normalId } from './guid.ts'
import type { HostVm } from './host-vms.ts'
import type { PartitionName } from './partition.ts'

/** What is longer is no VM's name: messages show no more of it. */
const SHOWN = 100

/** The partitions that a library sees, with what the host knows of them, and the host's other VMs with what hinders. */
export function mergedListings(partitions: readonly PartitionName[], host: readonly HostVm[]): VmListing[] {
  const known = new Map(host.map((vm) => [vm.id, vm]))
  const seen = new Set(partitions.map(({ id }) => id))
  return [
    ...partitions.map(({ id, name }) => {
      const vm = known.get(id)
      return { vm: id, id, name: name || vm?.name || id, state: vm?.state ?? 'unknown' }
    }),
    ...host
      .filter(({ id }) => !seen.has(id))
      .map(({ id, name, state }) => ({ vm: id, id, name, state, hindrance: hindranceOf(state) })),
  ]
}

/** The partition that a user means by name or id. Throws `VM_NOT_FOUND`, `VM_AMBIGUOUS`. */
export function chosen(vm: string, partitions: readonly PartitionName[], host: readonly HostVm[]): PartitionName {
  const named = mergedListings(partitions, host)
  const byId = partitions.find(({ id }) => id === normalId(vm))
  if (byId) return byId
  const ids = named.filter(({ name, hindrance }) => name === vm && hindrance === undefined).map(({ id }) => id)
  if (ids.length > 1) {
    throw new MicrovmiError('VM_AMBIGUOUS', `several VMs are called '${shown(vm)}': open one by id (${ids.join(', ')})`)
  }
  const partition = partitions.find(({ id }) => id === ids[0])
  if (partition) return partition
  const other = named.find(({ id, name }) => name === vm || id === normalId(vm))
  const running = named.filter(({ hindrance }) => hindrance === undefined)
  throw new MicrovmiError(
    'VM_NOT_FOUND',
    other?.hindrance === undefined
      ? `no partition is called '${shown(vm)}'. Running: ${running.map(({ name, id }) => `${shown(name)} (${id})`).join(', ') || 'none that can be seen'}`
      : `'${shown(vm)}' cannot be opened: ${other.hindrance}`,
  )
}

function shown(text: string): string {
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text
}

function hindranceOf(state: VmListing['state']): string {
  if (state === 'saved') return 'it is saved: start it, or open its saved state with the driver hypervSaved'
  if (state === 'stopped') return 'it is off: start it'
  return 'its partition is not seen: is it just starting, or a shielded one?'
}
