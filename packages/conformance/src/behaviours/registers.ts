import { pageFrame, type RegisterName, type Registers, type Vm } from '@microvmi/core'
import { behaviours } from '../behaviour.ts'
import { expect, expectEqual, expectThrows, hex } from '../expect.ts'

const GENERAL = ['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp'] as const
const EXTENDED = ['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'] as const
const CORE: readonly RegisterName[] = [...GENERAL, ...EXTENDED, 'rip', 'rflags', 'cr0', 'cr2', 'cr3', 'cr4']

/** CR0.PG and CR4.PAE (Intel SDM volume 3A, section 2.5). */
const PAGING = 1n << 31n
const PHYSICAL_ADDRESS_EXTENSION = 1n << 5n
/** IA32_EFER.LMA (Intel SDM volume 3A, section 2.2.1). */
const LONG_MODE_ACTIVE = 1n << 10n
/** L of a code segment's attributes: its code is 64-bit (Intel SDM volume 3A, section 3.4.5). */
const LONG = 0x2000
/** RFLAGS bit 1 is always 1 (Intel SDM volume 1, figure 3-8). */
const ALWAYS_SET = 2n
/** S and P of a segment's attributes: the code segment that a vCPU executes from has both (Intel SDM volume 3A, 3.4.5). */
const CODE_SEGMENT = 0x90

/** `readRegisters`. */
export const registers = behaviours('registers: reads', (define) => {
  define('every vCPU has its registers, and no other has', ['registers.read'], (trial) => {
    const { vm } = trial
    expectEqual(vm.vcpuCount, trial.guest.vcpuCount ?? vm.vcpuCount, 'vcpuCount')
    for (let vcpu = 0; vcpu < vm.vcpuCount; vcpu++) {
      const read = vm.readRegisters(vcpu)
      expectEqual(read.architecture, 'x86-64', 'the architecture')
      for (const name of CORE) expect(isWord(read[name]), `${name} of vcpu ${vcpu} is no unsigned 64-bit bigint`)
      for (const [name, value] of Object.entries(read)) expectRegister(name, value, vcpu)
      expect(vm.readRegisters(vcpu) !== read, 'readRegisters() returns the same object twice')
    }
    for (const wrong of [-1, 0.5, vm.vcpuCount, Number.NaN]) {
      expectThrows('BAD_ARGUMENT', `readRegisters(${wrong})`, () => vm.readRegisters(wrong))
    }
  })

  define('CR3 points into memory', ['registers.read', 'memory.read'], (trial) => {
    const { vm } = trial
    let seen = 0
    for (let vcpu = 0; vcpu < vm.vcpuCount; vcpu++) {
      const { cr0, cr3 } = vm.readRegisters(vcpu)
      if ((cr0 & PAGING) === 0n) continue
      seen += 1
      const root = pageFrame(cr3)
      expect(root !== 0, `CR3 of vcpu ${vcpu} is ${hex(cr3)} though paging is on`)
      expect(vm.memory.tryRead(root, new Uint8Array(4096)), `CR3 of vcpu ${vcpu}, ${hex(cr3)}, points at no memory`)
    }
    if (seen === 0) trial.skip('paging is off on every vCPU of the guest')
  })

  define('what is not known is undefined, never 0', ['registers.read'], ({ vm }) => {
    for (let vcpu = 0; vcpu < vm.vcpuCount; vcpu++) {
      const { rip, rflags, cr0, cr4, efer, cs } = vm.readRegisters(vcpu)
      expect((rflags & ALWAYS_SET) !== 0n, `rflags of vcpu ${vcpu} is ${hex(rflags)}: bit 1 is always set`)
      const is64Bit = rip >= 2n ** 32n || ((cs?.attributes ?? 0) & LONG) !== 0
      const isLong = (cr0 & PAGING) !== 0n && (cr4 & PHYSICAL_ADDRESS_EXTENSION) !== 0n && is64Bit
      if (isLong && efer !== undefined) {
        expect((efer & LONG_MODE_ACTIVE) !== 0n, `efer of vcpu ${vcpu} is ${hex(efer)} though it runs in long mode`)
      }
      if (cs?.attributes === undefined) continue
      const isCode = (cs.attributes & CODE_SEGMENT) === CODE_SEGMENT
      expect(isCode, `the attributes of cs of vcpu ${vcpu} are ${hex(cs.attributes)}: no code segment that is present`)
    }
  })

  define('what this driver cannot give is undefined', ['registers.read'], (trial) => {
    const absent = trial.part(trial.guest.registers?.absent, 'Guest.registers.absent')
    for (const name of absent) {
      expectEqual(trial.vm.readRegisters(0)[name], undefined, `${name}, which this driver cannot know,`)
    }
  })

  define('what is known from elsewhere', ['registers.read'], async (trial) => {
    const { registers } = trial.guest
    const known = trial.part(registers?.known?.bind(registers), 'Guest.registers.known')
    trial.still()
    for (let vcpu = 0; vcpu < trial.vm.vcpuCount; vcpu++) {
      const expected = textOf(await known(vcpu))
      const actual = textOf(trial.vm.readRegisters(vcpu))
      for (const [name, value] of expected) expectEqual(actual.get(name), value, `${name} of vcpu ${vcpu}`)
    }
  })

  define('the same while the guest stands still', ['registers.read', 'pause'], (trial) => {
    trial.still()
    for (let vcpu = 0; vcpu < trial.vm.vcpuCount; vcpu++) {
      expectSame(trial.vm.readRegisters(vcpu), trial.vm.readRegisters(vcpu), `vcpu ${vcpu} that is paused`)
    }
  })

  define('each vCPU has its own', ['registers.read', 'pause'], (trial) => {
    const { vm } = trial
    if (vm.vcpuCount < 2) trial.skip('the guest has one vCPU')
    trial.still()
    const first = vm.readRegisters(0)
    for (let vcpu = 1; vcpu < vm.vcpuCount; vcpu++) {
      const other = vm.readRegisters(vcpu)
      const differs = CORE.some((name) => first[name] !== other[name])
      expect(differs, `every register of vcpu ${vcpu} has the value of vcpu 0: is the number of the vCPU ignored?`)
    }
  })

  define('wherever it is read, the run state stays', ['registers.read', 'pause'], ({ vm }) => {
    const before = vm.runState()
    for (let vcpu = 0; vcpu < vm.vcpuCount; vcpu++) vm.readRegisters(vcpu)
    expectEqual(vm.runState(), before, 'the run state after readRegisters()')
  })
})

function isWord(value: unknown): boolean {
  return typeof value === 'bigint' && BigInt.asUintN(64, value) === value
}

function isCount(value: unknown): boolean {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff
}

/** Throws unless a value can be that of a register: a word, a segment or a table. */
function expectRegister(name: string, value: unknown, vcpu: number): void {
  if (value === undefined || name === 'architecture') return
  const which = `${name} of vcpu ${vcpu}`
  if (typeof value !== 'object' || value === null) {
    expect(isWord(value), `${which} is no unsigned 64-bit bigint`)
    return
  }
  for (const [part, content] of Object.entries(value)) {
    if (content === undefined) continue
    const fits = part === 'base' ? isWord(content) : isCount(content)
    expect(fits, `${part} of ${which} is ${String(content)}`)
  }
}

/** The registers as text, those that are not given left out. The TSC goes on by itself. */
function textOf(read: object): Map<string, string> {
  const words = Object.entries(read).filter(([name, value]) => name !== 'tsc' && value !== undefined)
  return new Map(words.map(([name, value]) => [name, text(value)]))
}

function text(value: unknown): string {
  if (typeof value === 'bigint' || typeof value === 'number') return hex(value)
  if (typeof value !== 'object' || value === null) return String(value)
  const parts = Object.entries(value).filter(([, part]) => part !== undefined)
  return parts
    .map(([name, part]) => `${name} ${text(part)}`)
    .sort()
    .join(', ')
}

/** Throws, with the first one that differs, unless both are equal in all registers but `except`. */
export function expectSame(actual: Registers, expected: Registers, of: string, except: readonly string[] = []): void {
  const now = textOf(actual)
  for (const [name, value] of textOf(expected)) {
    if (!except.includes(name)) expectEqual(now.get(name), value, `${name} of ${of}`)
  }
}

/** Throws unless what is `handed` over, which may be a part of all registers, is what was read. */
export function expectPartOf(handed: Registers, read: Registers, of: string): void {
  expectSame(overlaid(read, handed), read, of)
}

/** One object with what is defined in another in its place; their objects likewise. */
function overlaid<T extends object>(below: T, above: object): T {
  const under = new Map(Object.entries(below))
  const defined = Object.entries(above).filter(([, value]) => value !== undefined)
  const parts = defined.map(([name, value]) => {
    const part = under.get(name)
    return [name, typeof part === 'object' && typeof value === 'object' ? overlaid(part, value) : value]
  })
  return { ...below, ...Object.fromEntries(parts) }
}

/** The general registers that may hold anything while a vCPU stands still. */
export function freeRegisters(vm: Vm<'registers.write'>): RegisterName[] {
  const free: readonly RegisterName[] = [...GENERAL, ...EXTENDED].filter((name) => name !== 'rsp' && name !== 'rbp')
  return free.filter((name) => vm.writableRegisters.has(name))
}
