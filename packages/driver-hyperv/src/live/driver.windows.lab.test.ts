import { open } from '@microvmi/core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { hyperv } from '../index.ts'
import { counterOf, libraries, startedWorker, type Worker } from './workers.testing.ts'

const NAME = 'Ünïcode 虚拟机 🖥 "quoted" ?#/'
const before = process.env.PATH
let worker: Worker

async function isListed({ guid }: Worker): Promise<boolean> {
  return (await hyperv.list({ timeout: 5000 })).some(({ id }) => id === guid)
}

/** Wine does not tell command lines, where vid.dll's way has the GUID from. */
function idBy(way: 'hvlib' | 'vid', { guid, partitionId }: Worker): string {
  return way === 'hvlib' ? guid : partitionId
}

/** Makes calls of the stand-ins fail with a Win32 error (asked_to_fail). */
function failing(calls: Readonly<Record<string, number>>): void {
  for (const [call, error] of Object.entries(calls)) process.env[`FAIL_${call}`] = String(error)
}

beforeAll(async () => {
  process.env.PATH = `${libraries()};${before}`
  worker = await startedWorker({ index: 2, name: NAME }, isListed)
})
beforeEach(() => {
  process.env.PATH = `${libraries()};${before}`
})
afterEach(() => {
  for (const name of Object.keys(process.env)) if (name.startsWith('FAIL_')) delete process.env[name]
})
afterAll(async () => {
  process.env.PATH = before
  await worker.kill()
})

test('probe says which way works, or what to do for each', async () => {
  expect(await hyperv.probe()).toMatchObject({ usable: true, details: { way: 'hvlib.dll' } })
  process.env.PATH = `${libraries('nameless')};${before}`
  expect(await hyperv.probe()).toMatchObject({ usable: true, details: { way: 'vid.dll' } })
  process.env.PATH = before
  expect(await hyperv.probe()).toEqual({
    usable: false,
    reason: expect.stringMatching(/hvlib: .*LiveCloudKd.* vid: .*turn on Windows' feature Hyper-V/),
  })
})

describe.each(['hvlib', 'vid'] as const)('by %s', (way) => {
  const opened = (vm: string) => open(hyperv, { vm, way, [way]: libraries() })

  test.each([
    ['name', () => NAME],
    ['id', () => idBy(way, worker)],
    ['id in capitals', () => idBy(way, worker).toUpperCase()],
  ])('opens by %s', async (_, vm) => {
    const session = await opened(vm())
    try {
      const { name, id, vcpuCount, info } = session
      expect({ name, id, vcpuCount }).toEqual({ name: NAME, id: idBy(way, worker), vcpuCount: 2 })
      expect(info.details).toMatchObject({ way: `${way}.dll` })
      const bytes = new Uint8Array(32)
      session.memory.read(0x7_fff3, bytes)
      expect(bytes).toEqual(worker.bytesAt(0x7_fff3, 32))
    } finally {
      await session.close()
    }
  })

  test('does not stop the guest when it opens, reads, writes a byte, and closes', async () => {
    const session = await opened(NAME)
    try {
      expect(session.runState()).toBe('running')
      session.memory.writeUint8(0x30_0001, 0x5a)
      expect(session.memory.readUint8(0x30_0001)).toBe(0x5a)
      session.readRegisters(1)
      const count = session.memory.readUint64(counterOf(1))
      await expect.poll(() => session.memory.readUint64(counterOf(1))).toBeGreaterThan(count)
    } finally {
      await session.close()
    }
  })

  test('a second session is BUSY until the first is closed', async () => {
    const session = await opened(NAME)
    try {
      await expect(opened(idBy(way, worker))).rejects.toMatchObject({ code: 'BUSY' })
      expect((await hyperv.list({ timeout: 5000 })).map(({ id }) => id)).toContain(worker.guid)
      expect(session.memory.readUint32(0x20_0000)).toBeTypeOf('number')
    } finally {
      await session.close()
    }
    await (await opened(NAME)).close()
  })

  test('an unknown name is VM_NOT_FOUND, and the message says what runs', async () => {
    const message = expect.stringContaining(idBy(way, worker))
    await expect(opened('none')).rejects.toMatchObject({ code: 'VM_NOT_FOUND', message })
  })

  test('a partition that goes away between two calls is VM_GONE from each', async () => {
    const other = await startedWorker({ index: way === 'vid' ? 4 : 3, name: 'going' }, isListed)
    const session = await opened(idBy(way, other))
    try {
      session.memory.readUint8(0)
      await other.kill()
      const gone = expect.objectContaining({ code: 'VM_GONE' })
      expect(() => session.readRegisters(0)).toThrow(gone)
      expect(() => session.memory.writeUint8(0, 1)).toThrow(gone)
      expect(() => session.runState()).toThrow(gone)
      expect(() => session.memory.read(0, new Uint8Array(256 * 64 * 4096))).toThrow(gone)
    } finally {
      await session.close()
    }
    await expect(opened(idBy(way, other))).rejects.toMatchObject({ code: 'VM_NOT_FOUND' })
  })

  test('there are no events, and the reason says why', async () => {
    const session = await opened(NAME)
    try {
      expect([...session.capabilities].filter((name) => name.startsWith('events'))).toEqual([])
      expect(session.capabilities.has('memory.regions')).toBe(way === 'vid')
    } finally {
      await session.close()
    }
  })
})

describe('hvlib.dll that fails', () => {
  const opened = () => open(hyperv, { vm: NAME, way: 'hvlib', hvlib: libraries() })

  test.each([
    ['SdkEnumPartitions', 5, 'DENIED', /run as administrator/],
    ['SdkEnumPartitions', 2, 'DRIVER_UNAVAILABLE', /hvmm.sys beside it/],
    ['SdkGetDefaultConfig', 0, 'HYPERVISOR', /gave no reason.*hvmm.sys/],
    ['SdkSelectPartition', 1314, 'DENIED', /a privilege is missing/],
    ['SdkReadVpRegister', 0, 'UNSUPPORTED', /first vCPU's rip/],
  ])('%s with Win32 error %i is %s', async (call, error, code, message) => {
    failing({ [call]: error })
    await expect(opened()).rejects.toMatchObject({ code, message: expect.stringMatching(message) })
    failing({ [call]: 0 })
    delete process.env[`FAIL_${call}`]
    await (await opened()).close()
  })

  test('a failing pause or write says so, and the guest runs on', async () => {
    const session = await opened()
    try {
      failing({ SdkControlVmState: 87, SdkWritePhysicalMemory: 8 })
      expect(() => session.pause()).toThrow(/SdkControlVmState failed with Win32 error 87/)
      expect(() => session.memory.writeUint8(0, 1)).toThrow(/SdkWritePhysicalMemory failed with Win32 error 8/)
      expect(session.runState()).toBe('running')
    } finally {
      await session.close()
    }
  })

  test('an export that lacks is named, with where to get the library', async () => {
    const lacking = open(hyperv, { vm: NAME, way: 'hvlib', hvlib: libraries('lacking') })
    const message = expect.stringMatching(/does not export SdkControlVmState.*LiveCloudKd/)
    await expect(lacking).rejects.toMatchObject({ code: 'DRIVER_UNAVAILABLE', message })
  })

  test('another library, or none, says what to do', async () => {
    const wrong = open(hyperv, { vm: NAME, way: 'hvlib', hvlib: libraries('vid.dll') })
    await expect(wrong).rejects.toMatchObject({ code: 'DRIVER_UNAVAILABLE' })
    const program = open(hyperv, { vm: NAME, way: 'hvlib', hvlib: 'C:\\nowhere' })
    await expect(program).rejects.toMatchObject({ message: expect.stringMatching(/no hvlib.dll at C:\\nowhere/) })
    await expect(open(hyperv, { vm: NAME, way: 'wmi' as 'vid' })).rejects.toMatchObject({ code: 'BAD_ARGUMENT' })
  })
})

describe('vid.dll that fails', () => {
  const opened = (options: object = {}) =>
    open(hyperv, { vm: worker.partitionId, way: 'vid', vid: libraries(), ...options })

  test.each([
    ['VidQueryMemoryBlockMbpCount', 5, 'UNSUPPORTED', /serves a VM's own worker process only.*Use hvlib.dll/],
    ['VidQueryMemoryBlockMbpCount', 87, 'UNSUPPORTED', /a parameter was refused/],
    ['VidGetVirtualProcessorState', 50, 'UNSUPPORTED', /first vCPU's rip/],
    ['VidGetHvPartitionId', 5, 'UNSUPPORTED', /VidGetHvPartitionId is refused.*Use hvlib.dll/],
  ])('%s with Win32 error %i is %s', async (call, error, code, message) => {
    failing({ [call]: error })
    await expect(opened()).rejects.toMatchObject({ code, message: expect.stringMatching(message) })
    delete process.env[`FAIL_${call}`]
    await (await opened()).close()
  })

  test('without friendly names the id is the name', async () => {
    const session = await opened({ vid: libraries('nameless') })
    try {
      expect([session.name, session.id]).toEqual([worker.partitionId, worker.partitionId])
    } finally {
      await session.close()
    }
  })

  test('a write that fails leaves the guest running', async () => {
    const session = await opened()
    try {
      failing({ VidWriteMemoryBlockPageRange: 8 })
      expect(() => session.memory.writeUint8(1, 1)).toThrow(/VidWriteMemoryBlockPageRange failed with Win32 error 8/)
      expect(session.runState()).toBe('running')
    } finally {
      await session.close()
    }
  })

  test('memory that the host took back reads as BAD_ADDRESS, and there are no regions', async () => {
    const balloon = await startedWorker({ index: 5, name: 'balloon', hole: 4 }, isListed)
    try {
      const session = await opened({ vm: balloon.partitionId })
      try {
        const { start } = balloon.hole
        const bad = expect.objectContaining({ code: 'BAD_ADDRESS', address: start })
        expect(() => session.memory.read(start - 100, new Uint8Array(200))).toThrow(bad)
        expect(session.capabilities.has('memory.regions')).toBe(false)
      } finally {
        await session.close()
      }
    } finally {
      await balloon.kill()
    }
  })
})
