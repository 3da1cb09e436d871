import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { list, open, type Vm } from '@microvmi/core'
import { GUEST, knownContent, prepared, startVirtualBox, type VirtualBoxLab } from '@microvmi/lab-virtualbox'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { virtualbox } from './driver.ts'
import { inPath } from './fixture.testing.ts'

const NAME = `lab "with" ünusual $(name)'; true`
const PAGE = 4096
const code = (expected: string, message: string) =>
  expect.objectContaining({ code: expected, message: expect.stringContaining(message) })

/** A VM for the tests of a group; where there is none, they are skipped with the reason. */
function withLab(options: Parameters<typeof startVirtualBox>[0], tests: (lab: () => VirtualBoxLab) => void): void {
  let lab: VirtualBoxLab | undefined
  let restore: (() => void) | undefined
  let reason = 'the lab did not come up'
  class Skipped extends Error {}
  beforeAll(async () => {
    const skipping = {
      skip(why: string): never {
        reason = why
        throw new Skipped()
      },
    }
    try {
      lab = await prepared(skipping, () => startVirtualBox({ memoryMiB: 32, name: NAME, ...options }))
      restore = inPath(lab)
    } catch (error) {
      if (!(error instanceof Skipped)) throw error
    }
  })
  afterAll(async () => {
    restore?.()
    await lab?.stop()
  })
  tests(() => {
    if (!lab) throw new Error(reason)
    return lab
  })
}

const timeout = 15_000

type FullVm = Vm<
  'memory.read' | 'memory.write' | 'memory.regions' | 'registers.read' | 'registers.write' | 'msr.read' | 'pause'
>

describe('with the debug console', () => {
  withLab({ vcpus: 2 }, (lab) => {
    const opened = async <T>(work: (vm: FullVm) => T | Promise<T>) => {
      const vm = await open(virtualbox, {
        ...{ vm: NAME, directory: lab().directory, timeout },
        require: ['memory.read', 'memory.write', 'registers.write'],
      })
      try {
        return await work(vm)
      } finally {
        await vm.close()
      }
    }

    test('a VM is listed and opened by its name, whatever that is, and by its UUID', async () => {
      const { vms } = await list({ timeout })
      const listing = vms.find(({ name }) => name === NAME)
      expect(listing).toMatchObject({ state: 'running' })
      const uuid = listing?.id ?? ''
      const vm = await open(virtualbox, { vm: uuid.toUpperCase(), timeout })
      expect(vm).toMatchObject({ name: NAME, id: uuid, vcpuCount: 2 })
      expect(vm.info.hypervisor).toMatch(/^VirtualBox 7\./)
      await vm.close()
    })

    test('what is written is what the guest has, wherever the ends of the console’s input buffer fall', async () => {
      await opened((vm) => {
        for (let round = 0; round < 6; round++) {
          const bytes = Uint8Array.from({ length: PAGE + 3 + round }, (_, index) => (index * 13 + round) % 256)
          vm.memory.write(GUEST.scratch + 1, bytes)
          const back = new Uint8Array(bytes.length)
          vm.memory.read(GUEST.scratch + 1, back)
          expect(back).toEqual(bytes)
        }
      })
    })

    test('a second client is BUSY', async () => {
      await opened(async () => {
        await expect(open(virtualbox, { vm: NAME, timeout: 4000 })).rejects.toThrow(code('BUSY', 'another client'))
      })
    })

    test('a client that was killed leaves the console free, and its pause is told', async () => {
      const app = `
        import { open } from '@microvmi/core'
        import { virtualbox } from '@microvmi/driver-virtualbox'
        const vm = await open(virtualbox, { vm: process.argv[1], timeout: ${timeout} })
        vm.pause()
        console.log('paused')
        setInterval(() => {}, 1000)`
      const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', app, '--', NAME], {
        cwd: new URL('../..', import.meta.url),
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      await once(child.stdout, 'data')
      child.kill('SIGKILL')
      await once(child, 'close')
      await opened((vm) => {
        expect(vm.info.warnings.join()).toContain('it is paused')
        expect(vm.runState()).toBe('paused')
        vm.setRunState('running')
      })
    })
  })
})

describe('without the debug console', () => {
  withLab({ debugger: 'none' }, (lab) => {
    test('it is told how to switch it on, and the rest works', async () => {
      await expect(open(virtualbox, { vm: NAME, timeout, require: ['memory.read'] })).rejects.toThrow(
        code('UNSUPPORTED', 'VBoxManage modifyvm'),
      )
      const vm = await open(virtualbox, { vm: NAME, timeout, directory: lab().directory })
      expect([...vm.capabilities].sort()).toEqual(['memory.regions', 'msr.read', 'pause', 'registers.read'])
      expect(vm.readRegisters(0).r12).toBe(GUEST.r12)
      expect(vm.readMsr(0, 0xc000_0082)).toBe(GUEST.lstar)
      const within = { start: GUEST.known, length: GUEST.knownLength }
      for await (const { bytes } of vm.memory.pieces({ within })) expect(bytes).toEqual(knownContent())
      await vm.close()
    })

    test('a VM that is off is not opened', async () => {
      await lab().kill()
      await expect
        .poll(async () => (await list({ timeout })).vms.find(({ name }) => name === NAME)?.state, { timeout: 20_000 })
        .toBe('stopped')
      await expect(open(virtualbox, { vm: NAME, timeout })).rejects.toThrow(code('VM_NOT_FOUND', 'is not running'))
    })
  })
})
