import type { RunState } from '@microvmi/core'
import type { Io } from '../io.ts'
import { printJson } from '../json.ts'
import { type OpenFlags, withVm } from '../session.ts'

/** `microvmi pause TARGET`, `microvmi resume TARGET`: for longer than this process lives. */
export function runStateCommand(
  io: Io,
  target: string,
  state: RunState,
  flags: OpenFlags & { readonly json?: boolean },
): Promise<void> {
  return withVm(io, target, flags, ['pause'], (vm) => {
    const before = vm.runState()
    vm.setRunState(state)
    if (flags.json) printJson(io, { name: vm.name, before, now: vm.runState() })
    else io.stderr.write(before === state ? `${vm.name} was ${state} already\n` : `${vm.name} is ${state}\n`)
  })
}
