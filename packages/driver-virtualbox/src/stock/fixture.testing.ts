import { delimiter } from 'node:path'
import type { Fixture, Guest } from '@microvmi/conformance'
import type { Vm, VmBase } from '@microvmi/core'
import { GUEST, knownContent, startVirtualBox, type VirtualBoxLab } from '@microvmi/lab-virtualbox'
import { virtualbox } from './driver.ts'

const MEMORY_MIB = 64

/** Has the lab's VBoxManage found as users have it: in the path. */
export function inPath(lab: VirtualBoxLab): () => void {
  const before = process.env.PATH ?? ''
  process.env.PATH = `${lab.directory}${delimiter}${before}`
  return () => {
    process.env.PATH = before
  }
}

/** A real VM, which is started again after a case has made it vanish. */
export function virtualboxFixture(options: {
  vcpus?: number
  debugger?: 'native' | 'none'
}): Fixture & AsyncDisposable {
  let current: { readonly lab: VirtualBoxLab; readonly guest: Guest; readonly restore: () => void } | undefined
  let hasVanished = false
  const stop = async () => {
    current?.restore()
    await current?.lab.stop()
    current = undefined
  }
  return {
    driver: virtualbox,
    async guest() {
      if (current && hasVanished) await stop()
      if (current) return current.guest
      hasVanished = false
      const lab = await startVirtualBox({ vcpus: 1, memoryMiB: MEMORY_MIB, name: 'lab vm', ...options })
      const guest = describe(lab, options.vcpus ?? 1, options.debugger === 'none', async () => {
        hasVanished = true
        await lab.kill()
      })
      current = { lab, guest, restore: inPath(lab) }
      return guest
    },
    // VBoxManage takes 30 to 90 ms a call.
    slowness: 3,
    startup: 280_000,
    [Symbol.asyncDispose]: stop,
  }
}

function describe(lab: VirtualBoxLab, vcpuCount: number, isSilent: boolean, vanish: () => Promise<void>): Guest {
  const known = knownContent()
  return {
    vm: lab.name,
    options: { directory: lab.directory, timeout: 10_000 },
    sessions: isSilent ? 'several' : 'one',
    vcpuCount,
    memory: {
      known: [{ address: GUEST.known + 3, bytes: known.subarray(3) }],
      end: MEMORY_MIB * 2 ** 20,
      hole: { start: MEMORY_MIB * 2 ** 20, length: 2 ** 20 },
      scratch: { address: GUEST.scratch, length: 2 * 4096 },
    },
    registers: {
      absent: ['xcr0'],
      known: (vcpu) => (vcpu === 0 ? { r12: GUEST.r12, r13: GUEST.r13, lstar: GUEST.lstar } : {}),
      writable: { cr2: 0x1234_5678n },
    },
    progressOf: (vm, vcpu) => (vcpu === 0 ? progress(vm) : undefined),
    vanish,
  }
}

/** What changes all the time: the guest's count, or, where memory is not to be had, the processor's. */
function progress(vm: VmBase): bigint {
  const one = vm as VmBase & Vm<'memory.read' | 'registers.read'>
  return vm.capabilities.has('memory.read') ? one.memory.readUint64(GUEST.count) : (one.readRegisters(0).tsc ?? 0n)
}
