import { MicrovmiError, type VmListing } from '@microvmi/core/driver'
import { runStateOf } from './machine.ts'
import type { VBoxManage } from './vboxmanage.ts'
import { parseInfo, parseVms, type RegisteredVm } from './vboxmanage-output.ts'

/** The VMs of this user, and whether they run. */
export function listings(vboxmanage: VBoxManage, timeout: number): VmListing[] {
  const deadline = performance.now() + timeout
  const running = new Set(runningVms(vboxmanage).map(({ uuid }) => uuid))
  return parseVms(vboxmanage.ask('list', 'vms')).map(({ name, uuid }) => {
    const listing = { vm: uuid, name, id: uuid }
    if (performance.now() > deadline)
      throw new MicrovmiError('TIMEOUT', 'VirtualBox did not tell of all its VMs in time')
    const state = stateOf(vboxmanage, uuid)
    if (running.has(uuid)) return { ...listing, state: runStateOf(state) ?? 'unknown' }
    if (state === 'saved') return { ...listing, state, hindrance: 'its state is saved: start it' }
    return { ...listing, state: 'stopped', hindrance: 'it is not running: start it' }
  })
}

function stateOf(vboxmanage: VBoxManage, uuid: string): string | undefined {
  try {
    return parseInfo(vboxmanage.ask('showvminfo', uuid, '--machinereadable')).get('VMState')
  } catch (error) {
    // Removed meanwhile, or its files cannot be read: it is listed, and what it does is unknown.
    if (error instanceof MicrovmiError && (error.code === 'VM_GONE' || error.code === 'HYPERVISOR')) return undefined
    throw error
  }
}

/** The running VM of this name or UUID. Throws `VM_NOT_FOUND`, `VM_AMBIGUOUS`. */
export function runningVm(vboxmanage: VBoxManage, vm: string): RegisteredVm {
  const all = parseVms(vboxmanage.ask('list', 'vms'))
  const named = all.filter(({ name }) => name === vm)
  const [first, second] = named.length > 0 ? named : all.filter(({ uuid }) => uuid === vm.toLowerCase())
  const shown = vm.slice(0, 100)
  if (first && second) {
    const uuids = named.map(({ uuid }) => uuid).join(', ')
    throw new MicrovmiError('VM_AMBIGUOUS', `several VMs are called '${shown}': open one by its UUID (${uuids})`)
  }
  const running = runningVms(vboxmanage)
  if (first && running.some(({ uuid }) => uuid === first.uuid)) return first
  if (first) {
    throw new MicrovmiError('VM_NOT_FOUND', `'${shown}' is not running: start it (VBoxManage startvm ${first.uuid})`)
  }
  const names = running.map(({ name }) => `'${name}'`).join(', ')
  throw new MicrovmiError(
    'VM_NOT_FOUND',
    `VirtualBox has no VM '${shown}'. Running VMs of this user: ${names || 'none'}`,
  )
}

function runningVms(vboxmanage: VBoxManage): RegisteredVm[] {
  return parseVms(vboxmanage.ask('list', 'runningvms'))
}
