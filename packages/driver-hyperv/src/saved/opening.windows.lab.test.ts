import { join } from 'node:path'
import { open } from '@microvmi/core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { hypervSaved } from './driver.ts'
import { counts, provider, registersOf, SavedStates } from './saved-state.testing.ts'

let states: SavedStates
beforeAll(() => {
  states = new SavedStates()
})
afterAll(() => states.end())

const opened = (vm: string, options: object = {}) => open(hypervSaved, { vm, provider: provider(), ...options })

describe('what is opened', () => {
  test('a VM by its name, in any script', async () => {
    for (const name of ['web', 'Köln 北京 😀', "a 'b' & c; %d #e"]) {
      const path = states.file(`${name}.vmrs`)
      const vm = await opened(name)
      expect(vm.name).toBe(name)
      expect(vm.id.toLowerCase()).toBe(path.toLowerCase())
      await vm.close()
    }
  })

  test('a snapshot of it', async () => {
    states.file('snapped@before.vmrs', { vcpus: 3 })
    const vm = await opened('snapped', { snapshot: 'before' })
    expect(vm.vcpuCount).toBe(3)
    await vm.close()
    await expect(opened('snapped', { snapshot: 'other' })).rejects.toMatchObject({
      code: 'VM_NOT_FOUND',
      message: expect.stringContaining("no VM 'snapped' with a snapshot 'other'"),
    })
  })

  test('a pair, by name and by the path of either', async () => {
    const bin = states.file('pair.bin')
    const vsv = states.text('pair.vsv', '')
    for (const name of ['pair', bin, vsv]) {
      const vm = await opened(name)
      expect(vm.info.details.files).toBe(`${bin}, ${vsv}`)
      await vm.close()
    }
  })

  test('by target', async () => {
    const path = states.file('target.vmrs')
    const vm = await open(`hyperv-saved:${encodeURIComponent(path)}?provider=${encodeURIComponent(provider())}`)
    expect(vm.vcpuCount).toBe(2)
    await vm.close()
  })
})

describe('what is not there', () => {
  test('a VM, a saved state, a file, the other file of a pair', async () => {
    states.text('off.off', '')
    states.file('lone.bin')
    for (const [vm, message] of [
      ['nobody', /no VM 'nobody'/],
      ['off', /'off' has no saved state: save the VM/],
      ['lone', /'lone' has no saved state/],
      [join(states.directory, 'none.vmrs'), /no file .*none\.vmrs/],
      [join(states.directory, 'lone.bin'), /no file .*lone\.vsv/],
    ] as const) {
      await expect(opened(vm)).rejects.toMatchObject({ code: 'VM_NOT_FOUND', message: expect.stringMatching(message) })
    }
  })

  test('the library, or an export of it', async () => {
    const vm = states.file('fine.vmrs')
    await expect(open(hypervSaved, { vm, provider: 'C:\\nowhere' })).rejects.toMatchObject({
      code: 'DRIVER_UNAVAILABLE',
      message: expect.stringContaining('no VmSavedStateDumpProvider.dll at C:\\nowhere'),
    })
    await expect(opened(vm, { provider: provider('lacking') })).rejects.toMatchObject({
      code: 'DRIVER_UNAVAILABLE',
      message: expect.stringContaining('does not export GetPagingMode'),
    })
    await expect(opened(vm, { provider: states.text('no.dll', 'no library') })).rejects.toMatchObject({
      code: 'DRIVER_UNAVAILABLE',
    })
    expect(await hypervSaved.probe()).toMatchObject({ usable: false, reason: expect.stringContaining('Windows SDK') })
  })
})

describe('what is bad', () => {
  const openStates = () => counts().openStates()

  test('HRESULTs of every call are told, and nothing stays open', async () => {
    for (const [call, hresult, code] of [
      ['LoadSavedStateFile', 0x8007_0005, 'DENIED'],
      ['LoadSavedStateFile', 0x8007_0020, 'BUSY'],
      ['GetVpCount', 0x8007_000d, 'PROTOCOL'],
      ['GetArchitecture', 0x8000_4005, 'HYPERVISOR'],
      ['GetRegisterValue', 0x8007_0057, 'UNSUPPORTED'],
      ['GetPagingMode', 0x8000_4001, 'UNSUPPORTED'],
      ['GetGuestPhysicalMemoryChunks', 0xc037_0509, 'HYPERVISOR'],
    ] as const) {
      const vm = states.file('fails.vmrs', { fail: `${call}:0x${hresult.toString(16)}` })
      const message = expect.stringContaining(`${call} failed with HRESULT 0x${hresult.toString(16)}`)
      await expect(opened(vm)).rejects.toMatchObject({ code, message })
      expect(openStates()).toBe(0)
    }
  })

  test('what LocateSavedStateFiles answers', async () => {
    process.env.LOCATE_ANSWER = '0x80070005'
    try {
      await expect(opened('web')).rejects.toMatchObject({ code: 'DENIED' })
    } finally {
      delete process.env.LOCATE_ANSWER
    }
  })

  test('a file that is no saved state', async () => {
    await expect(opened(states.text('text.vmrs', 'Dear diary'))).rejects.toMatchObject({
      code: 'PROTOCOL',
      message: expect.stringContaining('is the file a saved state of Hyper-V'),
    })
  })

  test('contents that cannot be', async () => {
    for (const [contents, message] of [
      [{ vcpus: 0 }, /0 vCPUs/],
      [{ vcpus: 100_000 }, /100000 vCPUs/],
      [{ chunks: '0+16,8+16' }, /overlap at 0x8000/],
      [{ chunks: '0xffffffffffffffff+2' }, /beyond 52 bits/],
      [{ page: 0 }, /page size of 0/],
      [{ count: 0 }, /0 chunks/],
      [{ count: '0x7fffffffffffffff' }, /9223372036854775807 chunks/],
      [{ cr0: '0x11' }, /CR0 0x11 and the paging mode long/],
      [{ paging: 1 }, /paging mode non-paged/],
      [{ paging: 9 }, /paging mode 9/],
      [{ silent: 1 }, /in a way that is not known here/],
    ] as const) {
      const vm = states.file('bad.vmrs', contents)
      await expect(opened(vm)).rejects.toMatchObject({ code: 'PROTOCOL', message: expect.stringMatching(message) })
      expect(openStates()).toBe(0)
    }
    await expect(opened(states.file('arm.vmrs', { architecture: 3 }))).rejects.toMatchObject({ code: 'UNSUPPORTED' })
  })
})

describe('of the two generations', () => {
  test('the current one gives all, and what it knows of trust levels', async () => {
    const vm = await opened(states.file('new.vmrs'), { cacheBlocks: 77 })
    expect(vm.info.details).toMatchObject({
      sdk: 'current',
      architecture: 'x64',
      pagingMode: 'long',
      cacheBlocks: 77,
      virtualTrustLevel: 0,
      enabledVirtualTrustLevels: '0, 1',
      guestSystem: '0x1040a00004a65',
    })
    expect(counts().cacheBlocks()).toBe(77)
    expect(vm.readRegisters(1)).toEqual({ architecture: 'x86-64', ...registersOf('current', 1) })
    await vm.close()
    expect(counts().openStates()).toBe(0)
  })

  test('the first one gives what it has, and says what that is not', async () => {
    const vm = await opened(states.file('old.vmrs'), { provider: provider('17763') })
    expect(vm.info.details).toMatchObject({ sdk: '17763', cacheBlocks: 0 })
    expect(vm.info.warnings).toEqual([expect.stringContaining('no limit and no attributes')])
    expect(vm.readRegisters(1)).toEqual({ architecture: 'x86-64', ...registersOf('17763', 1) })
    await vm.close()
    expect(counts('17763').openStates()).toBe(0)
  })

  test('guests of 32 bits need the current one', async () => {
    const path = states.file('x86.vmrs', { architecture: 1, paging: 3 })
    const vm = await opened(path)
    expect(vm.info.details).toMatchObject({ architecture: 'x86', pagingMode: 'PAE' })
    await vm.close()
    await expect(opened(path, { provider: provider('17763') })).rejects.toMatchObject({ code: 'UNSUPPORTED' })
  })
})

describe('memory', () => {
  test('a short read where the chunk list has memory is an error, not zeros', async () => {
    const vm = await opened(states.file('cut.vmrs', { short: 0x10_1800 }))
    expect(() => vm.memory.read(0x10_1000, new Uint8Array(4096))).toThrow(
      expect.objectContaining({ code: 'PROTOCOL', message: expect.stringContaining('2048 of 4096 bytes at 0x101000') }),
    )
    expect(() => vm.memory.read(0x10_1000, new Uint8Array(2048))).not.toThrow()
    await vm.close()
  })

  test('the chunk list is the layout, holes left out', async () => {
    const vm = await opened(states.file('chunks.vmrs', { chunks: '0x100+0x10,0+2,2+3,0x200000+1' }))
    expect(vm.memory.regions().ranges).toEqual([
      { start: 0, length: 0x5000, kind: 'ram' },
      { start: 0x10_0000, length: 0x1_0000, kind: 'ram' },
      { start: 0x2_0000_0000, length: 0x1000, kind: 'ram' },
    ])
    await vm.close()
  })
})
