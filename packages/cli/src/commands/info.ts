import { supports } from '@microvmi/core'
import type { Io } from '../io.ts'
import { hex, printJson } from '../json.ts'
import { type OpenFlags, withVm } from '../session.ts'
import { size, table } from '../table.ts'

/** `microvmi info TARGET` */
export function infoCommand(io: Io, target: string, flags: OpenFlags & { readonly json?: boolean }): Promise<void> {
  return withVm(io, target, flags, [], (vm) => {
    const { driver, hypervisor, details, warnings } = vm.info
    const capabilities = [...vm.capabilities].sort()
    const state = supports(vm, 'pause') ? vm.runState() : undefined
    const ranges = supports(vm, 'memory.regions') ? vm.memory.regions().ranges : []
    const { name, id, vcpuCount } = vm
    if (flags.json) {
      printJson(io, { name, id, driver, hypervisor, state, vcpuCount, details, warnings, capabilities, memory: ranges })
      return
    }
    const rows: string[][] = [
      ['name', name],
      ['id', id],
      ['driver', driver],
      ['hypervisor', hypervisor],
      ...(state ? [['state', state]] : []),
      ['vcpus', String(vcpuCount)],
      ...Object.entries(details).map(([key, value]) => [key, String(value)]),
      ...ranges.map(({ start, length, kind }, index) => [
        index === 0 ? 'guest memory' : '',
        `${hex(start, 12)} - ${hex(start + length - 1, 12)}  ${kind}  ${size(length)}`,
      ]),
      ...capabilities.map((capability, index) => [index === 0 ? 'capabilities' : '', capability]),
    ]
    io.stdout.write(table(rows))
  })
}
