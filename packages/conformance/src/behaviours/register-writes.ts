import type { RegisterChanges, Vm } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expect, expectEqual, expectThrows } from '../expect.ts'
import type { Trial } from '../trial.ts'
import { expectSame, freeRegisters } from './registers.ts'

type Changing = 'registers.read' | 'registers.write' | 'pause'

/** `writeRegisters`, on a guest that stands still and gets its own values back. */
export const registerWrites = behaviours('registers: writes', (define) => {
  define('what is written reads back', ['registers.read', 'registers.write', 'pause'], (trial) => {
    for (let vcpu = 0; vcpu < trial.vm.vcpuCount; vcpu++) {
      const { before, names } = prepare(trial, vcpu)
      const changes: RegisterChanges = Object.fromEntries(names.map((name, index) => [name, wordOf(index, vcpu)]))
      trial.vm.writeRegisters(vcpu, changes)
      const after = trial.vm.readRegisters(vcpu)
      for (const name of names) expectEqual(after[name], changes[name], `${name} of vcpu ${vcpu}, which was written,`)
      expectSame(after, before, `vcpu ${vcpu}, which was not written`, names)
    }
  })

  define('the others stay as they are', ['registers.read', 'registers.write', 'pause'], (trial) => {
    const { before, names } = prepare(trial, 0)
    for (const name of names) {
      trial.vm.writeRegisters(0, { [name]: 0x1234_5678_9abc_def0n })
      const after = trial.vm.readRegisters(0)
      expectEqual(after[name], 0x1234_5678_9abc_def0n, `${name}, which was written alone,`)
      expectSame(after, before, `vcpu 0 when only ${name} was written`, [name])
      trial.vm.writeRegisters(0, { [name]: before[name] })
    }
  })

  define('the other vCPUs keep theirs', ['registers.read', 'registers.write', 'pause'], (trial) => {
    const { vm } = trial
    if (vm.vcpuCount < 2) trial.skip('the guest has one vCPU')
    const { names } = prepare(trial, 1)
    const [name] = names
    expect(name !== undefined, 'no general register can be written')
    const first = vm.readRegisters(0)
    vm.writeRegisters(1, { [name]: 0x0fed_cba9_8765_4321n })
    expectEqual(vm.readRegisters(1)[name], 0x0fed_cba9_8765_4321n, `${name} of vcpu 1, which was written,`)
    expectSame(vm.readRegisters(0), first, 'vcpu 0 when vcpu 1 was written')
  })

  define('every register that is called writable is', ['registers.read', 'registers.write', 'pause'], (trial) => {
    const { vm } = trial
    const { before } = prepare(trial, 0)
    const given = trial.guest.registers?.writable ?? {}
    for (const name of vm.writableRegisters) {
      const own = before[name]
      expect(own !== undefined, `${name} is writable but is not among the registers that are read`)
      // Its own value always fits.
      vm.writeRegisters(0, { [name]: own })
      expectSame(vm.readRegisters(0), before, `vcpu 0 when ${name} was written with what it had`)
    }
    const writable: ReadonlySet<string> = vm.writableRegisters
    for (const name of Object.keys(given)) expect(writable.has(name), `${name} is not writable here`)
    for (const name of vm.writableRegisters) {
      const value = given[name]
      if (value === undefined) continue
      vm.writeRegisters(0, { [name]: value })
      expectSame(vm.readRegisters(0), { ...before, [name]: value }, `vcpu 0 when ${name} was written`)
      vm.writeRegisters(0, { [name]: before[name] })
    }
  })

  define('one that is refused is refused before anything is written', ['registers.read', 'registers.write', 'pause'], (
    trial,
  ) => {
    const { vm } = trial
    const { before, names } = prepare(trial, 0)
    const [name] = names
    expect(name !== undefined, 'no general register can be written')
    const refused: Record<string, bigint> = { [name]: 0x77n, 'no register of this name': 1n }
    expectThrows('UNSUPPORTED', 'writeRegisters() with a register that is not writable', () => {
      vm.writeRegisters(0, refused)
    })
    expectSame(vm.readRegisters(0), before, 'vcpu 0 when a write was refused')
    for (const wrong of [-1n, 2n ** 64n]) {
      const changes = names.length > 1 ? { [names[1] ?? name]: 0x77n, [name]: wrong } : { [name]: wrong }
      expectThrows('BAD_ARGUMENT', `writeRegisters() with ${wrong}`, () => vm.writeRegisters(0, changes))
    }
    expectThrows('BAD_ARGUMENT', 'writeRegisters() of a vCPU that is not there', () => {
      vm.writeRegisters(vm.vcpuCount, { [name]: 1n })
    })
    expectSame(vm.readRegisters(0), before, 'vcpu 0 when writes were refused')
  })
})

/** Pauses, and has a vCPU's registers put back before the guest goes on. */
function prepare(trial: Trial<Changing>, vcpu: number) {
  trial.still()
  const names = freeRegisters(trial.vm)
  if (names.length === 0) trial.skip('no general register can be written here')
  const before = trial.vm.readRegisters(vcpu)
  const own: RegisterChanges = Object.fromEntries(names.map((name) => [name, before[name]]))
  trial.afterwards(() => writeAll(trial.vm, vcpu, own))
  return { before, names }
}

function writeAll(vm: Vm<'registers.write'>, vcpu: number, changes: RegisterChanges): void {
  vm.writeRegisters(vcpu, changes)
}

/** A value for each register of each vCPU, with both halves used. */
function wordOf(index: number, vcpu: number): bigint {
  return 0xf00d_0000_cafe_0000n + (BigInt(index + 1) << 32n) + BigInt(vcpu * 256 + index)
}
