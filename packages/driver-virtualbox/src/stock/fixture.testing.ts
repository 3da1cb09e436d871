import { delimiter } from 'node:path'
import type { Fixture, Guest, Provocation } from '@microvmi/conformance'
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

/** Which VM. */
export interface LabVm {
  readonly vcpus: number
  readonly debugger: 'native' | 'gdb' | 'none'
}

/** A real VM, which is started again after a case has made it vanish. */
export function virtualboxFixture(vm: LabVm): Fixture & AsyncDisposable {
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
      const lab = await startVirtualBox({ memoryMiB: MEMORY_MIB, name: 'lab vm', ...vm })
      const guest = describe(lab, vm, async () => {
        hasVanished = true
        await lab.kill()
      })
      current = { lab, guest, restore: inPath(lab) }
      return guest
    },
    // VBoxManage takes 30 to 90 ms a call, the GDB stub 100 ms a command: fewer and shorter reads.
    slowness: vm.debugger === 'gdb' ? 6 : 3,
    startup: 280_000,
    reuse: true,
    [Symbol.asyncDispose]: stop,
  }
}

function describe(lab: VirtualBoxLab, vm: LabVm, vanish: () => Promise<void>): Guest {
  const known = knownContent()
  return {
    vm: lab.name,
    options: { directory: lab.directory, timeout: 10_000 },
    sessions: vm.debugger === 'none' ? 'several' : 'one',
    vcpuCount: vm.vcpus,
    memory: {
      // Little more than a page: it is read in parts, too, at 20 ms each.
      known: [{ address: GUEST.known + 3, bytes: known.subarray(3, 4500) }],
      end: MEMORY_MIB * 2 ** 20,
      hole: { start: MEMORY_MIB * 2 ** 20, length: 2 ** 20 },
      // The GDB stub takes two minutes to put 8 KiB back after each case: breakpoints.virtualbox.lab.test.ts writes less.
      ...(vm.debugger === 'gdb' ? {} : { scratch: { address: GUEST.scratch, length: 2 * 4096 } }),
    },
    registers: {
      absent: ['xcr0'],
      known: (vcpu) => (vcpu === 0 ? { r12: GUEST.r12, r13: GUEST.r13, lstar: GUEST.lstar } : {}),
      writable: { cr2: 0x1234_5678n },
    },
    ...(vm.debugger === 'gdb' ? { provoke: { breakpoint: breakpointAt(lab.round) } } : {}),
    progressOf: (opened, vcpu) => (vcpu === 0 ? progress(opened) : undefined),
    vanish,
  }
}

/** The guest comes there all the time of its own accord. */
function breakpointAt(address: bigint): Provocation<'breakpoint'> {
  return {
    request: { kind: 'breakpoint', address },
    check(event) {
      if (event.address !== address || event.vcpu !== 0) throw new Error(`vCPU ${event.vcpu} at ${event.address}`)
    },
    replies: {
      registers: (event, vm) => {
        const r15 = vm.readRegisters(0).r15 + 1n
        event.reply({ registers: { r15 } })
        const now = vm.readRegisters(0).r15
        if (now !== r15) throw new Error(`r15 is ${now}, ${r15} was written`)
      },
    },
  }
}

/** What changes all the time: the guest's count, or, where memory is not to be had, the processor's. */
function progress(vm: VmBase): bigint {
  const one = vm as VmBase & Vm<'memory.read' | 'registers.read'>
  return vm.capabilities.has('memory.read') ? one.memory.readUint64(GUEST.count) : (one.readRegisters(0).tsc ?? 0n)
}
