import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { rangeOf, rangesInDump } from './core-dump.ts'
import { registersOf } from './registers.ts'
import { debuggerIn } from './settings-file.ts'
import { complaintIn, isGone, VBoxManage } from './vboxmanage.ts'
import { numberIn, parseInfo, parsePhysical, parseRegisters, parseVms } from './vboxmanage-output.ts'

const code = (expected: string) => expect.objectContaining({ code: expected })
const UUID = '31e5c8dc-a858-4e6a-a256-87672488f787'

describe('what VBoxManage prints', () => {
  test('names VMs, whatever their names are', () => {
    const names = fc.string({ unit: 'grapheme' }).filter((name) => !/[\r\n]/.test(name))
    fc.assert(
      fc.property(fc.array(names), (all) => {
        const text = `WARNING: The vboxdrv kernel module is not loaded.\n${all.map((name) => `"${name}" {${UUID}}\n`).join('')}`
        expect(parseVms(text).map(({ name }) => name)).toEqual(all)
      }),
      { examples: [[['a "b" {c}', '', 'a\u2028b', `x" {${UUID}} "y`, '/../;$(x)', 'ü']]] },
    )
  })

  test('says what a VM is', () => {
    const info = parseInfo('name="a "b" c"\ncpus=2\n"floppy-0-0"="/x/y=z.img"\nVMState="running"\n\nnonsense\n')
    expect(Object.fromEntries(info)).toEqual({
      name: 'a "b" c',
      cpus: '2',
      'floppy-0-0': '/x/y=z.img',
      VMState: 'running',
    })
    const escaped = fc.string().filter((text) => !/[\r\n]/.test(text))
    fc.assert(
      fc.property(escaped, (name) => {
        const written = name.replaceAll(/["\\]/g, '\\$&')
        expect(parseInfo(`name="${written}"\n`).get('name')).toBe(name)
      }),
      { examples: [['C:\\Users\\a "b"\\']] },
    )
    expect(numberIn(info, 'cpus', 64)).toBe(2)
    for (const value of ['0', '65', '-1', '1e3', '']) {
      expect(() => numberIn(new Map([['cpus', value]]), 'cpus', 64)).toThrow(code('PROTOCOL'))
    }
  })

  test('has registers, of which VirtualBox 7.2 fills the upper half of rflags with what happens to be there', () => {
    const core = ['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp', 'rip', 'cr0', 'cr2', 'cr3', 'cr4']
    const names = [...core, ...Array.from({ length: 8 }, (_, index) => `r${index + 8}`)]
    const text = [
      ...names.map((name, index) => `cpu1.${name.padEnd(19)} = 0x${index.toString(16).padStart(16, '0')}`),
      'cpu1.rflags              = 0x7e937e8d00200002',
      'cpu1.cs                  = 0x0008',
      'cpu1.cs_attr             = 0x0000af9b',
      'cpu1.cs_base             = 0x0000000000000000',
      'cpu1.cs_lim              = 0xffffffff',
      'cpu1.gdtr_base           = 0xffffffff80007d50',
      'cpu1.gdtr_lim            = 0x0017',
      'cpu1.gdtr                = 0xffffffff80007d50:0017',
      'cpu1.st0                 = +0',
      'cpu1.ymm0                = 0x0000000000000000000000000',
    ].join('\n')
    const registers = registersOf(parseRegisters(`cpu0.rax = 0x99\n${text}\ncpu11.rax = 0x77`, 1))
    expect(registers).toMatchObject({
      rflags: 0x20_0002n,
      rax: 0n,
      r15: 20n,
      cs: { selector: 8, base: 0n, limit: 0xffff_ffff, attributes: 0xa09b },
      gdt: { base: 0xffff_ffff_8000_7d50n, limit: 0x17 },
    })
    expect(registers.efer).toBeUndefined()
    expect(registers.idt).toBeUndefined()
    expect(() => registersOf(parseRegisters('cpu0.rax = 0x1', 0))).toThrow(code('PROTOCOL'))
  })

  test('names ranges of memory; those without memory behind them are devices', () => {
    const text = `RAM ranges (pVM=00007fa8a5d07000)
GC Phys Range                     pbR3            
0000000000000000-000000000009ffff 00007fa8a5a25000 Conventional RAM
00000000000a0000-00000000000bffff 0000000000000000 VGA - VGA Video Buffer
00000000000e0000-00000000000e0fff 00007fa8a57d8000 ACPI RSDP
00000000000f0000-00000000000fffff 00007fa8a5855000 PC BIOS - 0xfffff
0000000000100000-00000000001fffff 00007fa8a5925000 Extended RAM, 1-2MB
0000000000200000-0000000003ffffff 00007fa87c200000 Extended RAM, >2MB
`
    expect(parsePhysical(text)).toEqual([
      { start: 0, length: 0xa0000, kind: 'ram' },
      { start: 0xe0000, length: 0x1000, kind: 'rom' },
      { start: 0xf0000, length: 0x10000, kind: 'rom' },
      { start: 0x100000, length: 0x3f00000, kind: 'ram' },
    ])
    const overlapping = `${text}0000000000000000-000000000009ffff 00007fa8a5a25000 Again\n`
    expect(() => parsePhysical(overlapping)).toThrow(code('PROTOCOL'))
    expect(() => parsePhysical(`${'0'.repeat(15)}1-${'f'.repeat(16)} ${'1'.repeat(16)} x`)).toThrow(code('PROTOCOL'))
  })

  test('is read as it was written: registers, and ranges that never overlap', () => {
    const name = fc.stringMatching(/^[a-z][a-z0-9_]{0,12}$/)
    const registers = fc.dictionary(name, fc.bigInt({ min: 0n, max: 2n ** 72n }), { noNullPrototype: true })
    fc.assert(
      fc.property(registers, fc.nat(63), (values, vcpu) => {
        const all = Object.entries(values)
        const text = all.map(([key, value]) => `cpu${vcpu}.${key.padEnd(20)}= 0x${value.toString(16)}\n`).join('')
        const short = all.filter(([, value]) => value.toString(16).length <= 16)
        expect([...parseRegisters(`cpu${vcpu + 1}.rax = 0x1\n${text}`, vcpu)]).toEqual(short)
      }),
    )
    const digits = (value: number) => value.toString(16).padStart(16, '0')
    const range = fc.record({
      page: fc.nat(200),
      pages: fc.nat(9),
      host: fc.nat(1),
      name: fc.constantFrom('RAM', 'PC BIOS'),
    })
    fc.assert(
      fc.property(fc.array(range), (all) => {
        const text = all
          .map(({ page, pages, host, name }) => {
            const [first, last] = [page * 4096, (page + pages) * 4096 - 1]
            return `${digits(first)}-${digits(Math.max(0, last))} ${digits(host)} ${name}\n`
          })
          .join('')
        try {
          let end = 0
          for (const { start, length } of parsePhysical(text)) {
            expect(start).toBeGreaterThanOrEqual(end)
            expect(length).toBeGreaterThan(0)
            end = start + length
          }
        } catch (error) {
          expect(error).toMatchObject({ code: 'PROTOCOL' })
        }
      }),
    )
  })

  test('of any other sort crashes nothing', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        parseVms(text)
        parseInfo(text)
        parseRegisters(text, 0)
        parsePhysical(text)
        debuggerIn(text)
        complaintIn(text)
      }),
    )
  })
})

test('the settings tell where the debugger is', () => {
  const line = (attributes: string) => `<Debugging>\n  <GuestDebug ${attributes}/>\n</Debugging>`
  expect(debuggerIn(line('provider="None" io="TCP" address="127.0.0.1" port="12345"'))).toEqual({
    provider: undefined,
    host: '127.0.0.1',
    port: 12345,
  })
  expect(debuggerIn(line('provider="GDB" io="TCP" address="0.0.0.0" port="1"'))).toMatchObject({
    provider: 'gdb',
    port: 1,
  })
  expect(debuggerIn(line('provider="None" io="UDP" port="12345"'))).toBeUndefined()
  expect(debuggerIn(line('provider="None" io="TCP" port="70000"'))).toBeUndefined()
  expect(debuggerIn('<Machine/>')).toBeUndefined()
})

describe('a core dump', () => {
  /** An ELF core of x86-64 with these program headers. */
  function core(headers: readonly { type?: number; offset: bigint; address: bigint; length: bigint }[]): Uint8Array {
    const bytes = new Uint8Array(64 + 56 * headers.length)
    const view = new DataView(bytes.buffer)
    bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1])
    view.setUint16(16, 4, true)
    view.setUint16(18, 62, true)
    view.setBigUint64(32, 64n, true)
    view.setUint16(54, 56, true)
    view.setUint16(56, headers.length, true)
    for (const [index, { type = 1, offset, address, length }] of headers.entries()) {
      const at = 64 + 56 * index
      view.setUint32(at, type, true)
      view.setBigUint64(at + 8, offset, true)
      view.setBigUint64(at + 24, address, true)
      view.setBigUint64(at + 32, length, true)
    }
    return bytes
  }
  const ranges = (file: Uint8Array, length = file.length) =>
    rangesInDump((offset, count) => file.subarray(offset, offset + count), length)

  test('has ranges of memory; notes and devices are none', () => {
    const file = core([
      { type: 4, offset: 0n, address: 0n, length: 100n },
      { offset: 0x2000n, address: 0x10_0000n, length: 0x1000n },
      { offset: 0x1000n, address: 0n, length: 0xa_0000n },
      { offset: 0n, address: 0xa_0000n, length: 0n },
    ])
    const found = ranges(file, 2 ** 24)
    expect(found.map(({ address }) => address)).toEqual([0, 0x10_0000])
    expect(rangeOf(found, 0x10_0fff)).toMatchObject({ offset: 0x2000 })
    expect(rangeOf(found, 0x10_1000)).toBeUndefined()
  })

  test('that lies is PROTOCOL', () => {
    const size = fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.bigInt({ min: 0n, max: 9000n }))
    fc.assert(
      fc.property(fc.array(fc.record({ offset: size, address: size, length: size }), { maxLength: 4 }), (headers) => {
        try {
          for (const { offset, length } of ranges(core(headers), 8192))
            expect(offset + length).toBeLessThanOrEqual(8192)
        } catch (error) {
          expect(error).toMatchObject({ code: 'PROTOCOL' })
        }
      }),
    )
    for (const file of [new Uint8Array(10), new Uint8Array(64), core([]).subarray(0, 63)]) {
      expect(() => ranges(file)).toThrow(code('PROTOCOL'))
    }
  })
})

describe('running VBoxManage', () => {
  const directory = mkdtempSync(join(tmpdir(), 'microvmi-test-'))
  afterAll(() => rmSync(directory, { recursive: true }))
  const program = (name: string, body: string, timeout = 1000) => {
    const path = join(directory, name)
    writeFileSync(path, `#!/bin/sh\n${body}\n`)
    chmodSync(path, 0o700)
    return new VBoxManage(path, timeout)
  }

  test('passes names on as they are', () => {
    const echo = program('echo', `printf '%s|' "$@"`)
    const names = ['a b', `"'`, '$(id)', '; true', '-rf', 'ü/..', '*']
    expect(echo.run(names)).toBe(`${names.join('|')}|`)
  })

  test('fails with what to do', () => {
    expect(() => new VBoxManage(join(directory, 'nothing'), 1000).run(['list', 'vms'])).toThrow(
      code('DRIVER_UNAVAILABLE'),
    )
    expect(() => program('slow', 'exec sleep 10').run(['list', 'vms'], 100)).toThrow(code('TIMEOUT'))
    const off = `echo "VBoxManage: error: Machine 'x' is not currently running" >&2; exit 1`
    expect(() => program('off', off).run(['x'])).toThrow(code('VM_GONE'))
    const strange = 'echo "VBoxManage: error: Something else" >&2; exit 1'
    expect(() => program('strange', strange).run(['x', 'y'])).toThrow(
      expect.objectContaining({ code: 'HYPERVISOR', message: 'VBoxManage x y: Something else' }),
    )
    expect(isGone('VBoxManage: error: Already paused')).toBe(false)
  })

  test('fails likewise where it takes its time', async () => {
    await program('work', 'sleep 0.1').work(['x'], 5000)
    await expect(program('long', 'exec sleep 10').work(['x'], 100)).rejects.toEqual(code('TIMEOUT'))
    await expect(program('bad', 'echo "VBoxManage: error: No" >&2; exit 1').work(['x'], 5000)).rejects.toEqual(
      expect.objectContaining({ code: 'HYPERVISOR', message: 'VBoxManage x: No' }),
    )
    await expect(new VBoxManage(join(directory, 'nothing'), 1).work(['x'], 1000)).rejects.toEqual(
      code('DRIVER_UNAVAILABLE'),
    )
  })

  test('makes a call again that stands still', () => {
    const once = join(directory, 'was-here')
    const standing = program('standing', `[ -e '${once}' ] && echo "$1" && exit\ntouch '${once}'\nexec sleep 10`, 5000)
    const begin = performance.now()
    expect(standing.ask('list').trim()).toBe('list')
    expect(performance.now() - begin).toBeLessThan(4000)
    expect(() => program('still', 'exec sleep 10', 300).ask('list')).toThrow(code('TIMEOUT'))
  })
})
