import { type Guest, register } from '@microvmi/conformance'
import { MicrovmiError, type VmListing } from '@microvmi/core'
import { afterAll, describe, test } from 'vitest'
import { hyperv } from '../index.ts'
import { REGISTERS } from './register-names.ts'
import { counterOf, libraries, startedWorker, type Worker } from './workers.testing.ts'

const numberOf = new Map(REGISTERS.map(({ register: name, name: number }) => [name, number]))

/** What labs/windows/stand-ins/guest.c puts into an integer register. */
function integer(register: 'rax' | 'rip' | 'cr2' | 'lstar', vcpu: number): bigint {
  return (BigInt(vcpu + 1) << 32n) | BigInt(numberOf.get(register) ?? 0)
}

describe.each([
  { way: 'hvlib', path: [], hole: 16, index: 0 },
  // The directory has no hvlib.dll: `list`, which takes no options, is by vid.dll too.
  { way: 'vid', path: ['nameless'], hole: 0, index: 1 },
] as const)('by $way', ({ way, path, hole, index }) => {
  let worker: Worker | undefined
  const before = process.env.PATH

  register(
    {
      driver: hyperv,
      slowness: 4,
      startup: 60_000,
      async guest() {
        process.env.PATH = `${libraries(...path)};${before}`
        if (!worker?.isRunning) {
          const isThere = async ({ guid, partitionId }: Worker) => {
            const listing = await hyperv.list({ timeout: 5000 }).catch(noneWhileStarting)
            return listing.some(({ id }) => id === guid || id === partitionId)
          }
          worker = await startedWorker({ index, name: 'conformance', hole }, isThere)
        }
        return guestOf(worker, way === 'hvlib' ? worker.guid : worker.partitionId, { way, [way]: libraries(...path) })
      },
    },
    { describe, test, after: afterAll },
  )
  afterAll(async () => {
    process.env.PATH = before
    await worker?.kill()
  })
})

/** By vid.dll, a worker whose partition is not there yet looks like one that Windows refuses. */
function noneWhileStarting(error: unknown): readonly VmListing[] {
  if (error instanceof MicrovmiError && error.code === 'UNSUPPORTED') return []
  throw error
}

function guestOf(worker: Worker, vm: string, options: object): Guest {
  const { vcpus, end, hole } = worker
  return {
    vm,
    options,
    sessions: 'one',
    vcpuCount: vcpus,
    memory: {
      known: [
        { address: 0x10_0ffe, bytes: worker.bytesAt(0x10_0ffe, 3 * 4096) },
        { address: end - 4096, bytes: worker.bytesAt(end - 4096, 4096) },
      ],
      end,
      hole: hole.length > 0 ? hole : { start: end, length: 0x10_0000 },
      scratch: { address: 0x20_0000, length: 4 * 4096 },
    },
    registers: {
      absent: ['xcr0'],
      known: (vcpu) => ({
        rax: integer('rax', vcpu),
        rip: integer('rip', vcpu),
        rflags: 0x202n,
        cr0: 0x8005_0033n,
        cr2: integer('cr2', vcpu),
        cr3: 0x10_0000n + BigInt(vcpu) * 0x1000n,
        cr4: 0x6f8n,
        efer: 0xd01n,
        lstar: integer('lstar', vcpu),
        cs: { selector: 8, base: (BigInt(vcpu + 1) << 32n) | 0x6_0001n, limit: 0xffff_ffff, attributes: 0xa09b },
        gdt: { base: (BigInt(vcpu + 1) << 32n) | 0x7_0001n, limit: 0xfff },
      }),
      writable: {
        cr3: 0x1234_5000n,
        dr7: 0x400n,
        kernelGsBase: 0xffff_8000_0000_1000n,
        fs: { selector: 0x53, base: 0x7ff0_1234_5678n, limit: 0x3c00, attributes: 0x40f3 },
        idt: { base: 0xffff_f800_1234_5000n, limit: 0xfff },
      },
    },
    progress: (vm) => vm.memory.readUint64(counterOf(0)),
    progressOf: (vm, vcpu) => vm.memory.readUint64(counterOf(vcpu)),
    vanish: () => worker.kill(),
  }
}
