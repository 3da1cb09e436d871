import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createGuest } from './index.ts'

const word = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
/** Values where carries are. */
const edge = fc.constantFrom(0n, 1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 63n, 2n ** 64n - 1n)
const value = fc.oneof(word, edge)

const CARRY = 1n
const ZERO = 0x40n

/** Runs a piece of program to its end, an endless loop, and gives the registers. */
function run(source: string) {
  const program = { source: `start:\n${source}\nend: jmp end` }
  const guest = createGuest({ vcpus: 1, memory: 2 ** 22, processes: [{ name: 'test', program }], journalLength: 0 })
  guest.runNow(400)
  const { registers } = guest.vcpu(0)
  const { faults, labels } = guest.process('test')
  guest.remove()
  return { registers, faults, atEnd: registers.rip === labels.get('end') }
}

const model: Record<string, (own: bigint, other: bigint) => { result: bigint; carry: boolean }> = {
  add: (own, other) => ({ result: own + other, carry: own + other >= 2n ** 64n }),
  sub: (own, other) => ({ result: own - other, carry: own < other }),
  and: (own, other) => ({ result: own & other, carry: false }),
  or: (own, other) => ({ result: own | other, carry: false }),
  xor: (own, other) => ({ result: own ^ other, carry: false }),
}

test('calculations are those of 64-bit integers', () => {
  fc.assert(
    fc.property(fc.constantFrom(...Object.keys(model)), value, value, (name, own, other) => {
      const { registers, atEnd } = run(`mov rax, ${own}\nmov r15, ${other}\n${name} rax, r15`)
      const expected = model[name]?.(own, other) ?? { result: 0n, carry: false }
      const result = BigInt.asUintN(64, expected.result)
      expect(registers.rax).toBe(result)
      expect((registers.rflags & CARRY) !== 0n).toBe(expected.carry)
      expect((registers.rflags & ZERO) !== 0n).toBe(result === 0n)
      expect(atEnd).toBe(true)
    }),
    { numRuns: 60 },
  )
})

test('numbers of 32 bits are sign-extended, but for mov', () => {
  expect(run('mov rax, 5\nadd rax, -6').registers.rax).toBe(2n ** 64n - 1n)
  expect(run('mov rax, 0xffffffff').registers.rax).toBe(0xffff_ffffn)
  expect(run('mov rax, 0xffffffff\nand rax, -4096').registers.rax).toBe(0xffff_f000n)
})

test('shifts', () => {
  fc.assert(
    fc.property(value, fc.nat(63), (own, by) => {
      const { registers } = run(`mov rax, ${own}\nmov rbx, rax\nshl rax, ${by}\nshr rbx, ${by}`)
      expect(registers.rax).toBe(BigInt.asUintN(64, own << BigInt(by)))
      expect(registers.rbx).toBe(own >> BigInt(by))
    }),
    { numRuns: 40 },
  )
})

test('cmp and the jumps agree with unsigned order', () => {
  fc.assert(
    fc.property(value, fc.oneof(value, fc.constant(undefined)), (own, given) => {
      const other = given ?? own
      const jump = (name: string) =>
        run(`mov rax, ${own}\nmov rbx, ${other}\ncmp rax, rbx\n${name} yes\njmp end\nyes: mov rcx, 1`).registers.rcx ===
        1n
      expect(jump('jb')).toBe(own < other)
      expect(jump('jae')).toBe(own >= other)
      expect(jump('je')).toBe(own === other)
      expect(jump('jne')).toBe(own !== other)
    }),
    { numRuns: 15 },
  )
})

test('what is stored is loaded again, across pages too, and no byte around it changes', () => {
  fc.assert(
    fc.property(fc.constantFrom(8, 16, 32, 64), fc.integer({ min: 4080, max: 4100 }), value, (bits, offset, stored) => {
      const { registers } = run(`
        mov rbx, DATA
        mov rax, -1
        store64 [rbx+4072], rax
        store64 [rbx+4080], rax
        store64 [rbx+4088], rax
        store64 [rbx+4096], rax
        store64 [rbx+4104], rax
        store64 [rbx+4112], rax
        mov rcx, ${stored}
        store${bits} [rbx+${offset}], rcx
        load${bits} rdx, [rbx+${offset}]
        load8 rsi, [rbx+${offset - 1}]
        load8 rdi, [rbx+${offset + bits / 8}]`)
      expect(registers.rdx).toBe(BigInt.asUintN(bits, stored))
      expect([registers.rsi, registers.rdi]).toEqual([0xffn, 0xffn])
    }),
    { numRuns: 40 },
  )
})

test('calls, the stack, jumps through registers', () => {
  const { registers, atEnd } = run(`
      mov rax, 1
      push rax
      call more
      pop rbx
      mov rcx, indirect
      call rcx
      mov rcx, end
      jmp rcx
    more:
      add rax, 10
      ret
    indirect:
      add rax, 100
      ret`)
  expect([registers.rax, registers.rbx, registers.rsp, atEnd]).toEqual([111n, 1n, 0x7fff_ffff_f000n, true])
})

test.each([
  ['a privileged instruction', 'hlt'],
  ['a control register', 'mov rax, cr3'],
  ['a port', 'out8 0xe9'],
  ['an unknown instruction', 'ud2'],
  ['memory of the kernel', 'mov rbx, 0xffffffff81000000\nload8 rax, [rbx]'],
  ['its own code, written', 'mov rbx, 0x400000\nstore8 [rbx], rax'],
  ['its data, executed', 'mov rbx, DATA\njmp rbx'],
  ['nothing mapped', 'mov rbx, 0x123456789000\nload8 rax, [rbx]'],
  ['no canonical address', 'mov rbx, 0x1234567890000000\nload8 rax, [rbx]'],
])('a process faults on %s, and begins again', (_, source) => {
  const { faults, atEnd } = run(source)
  expect(faults).toBeGreaterThan(0n)
  expect(atEnd).toBe(false)
})

test('what the kernel has just read is none of the process', () => {
  const source =
    'start:\n  mov rax, 1\n  mov rbx, DATA\n  load64 rcx, [rbx+8]\n  syscall\n  load64 rdx, [rcx]\n  store64 [rbx+16], rdx\n  jmp start'
  using guest = createGuest({ vcpus: 1, timeSlice: 100_000, processes: [{ name: 'test', program: { source } }] })
  const { task, data } = guest.process('test')
  const [page = 0] = data
  // The kernel reads the task at every system call.
  const address = new BigUint64Array([0xffff_8880_0000_0000n + BigInt(task)])
  guest.write(page + 8, new Uint8Array(address.buffer))
  guest.runNow(5000)
  expect(guest.process('test').faults).toBeGreaterThan(10n)
  expect(guest.read(page + 16, 8)).toEqual(new Uint8Array(8))
})
