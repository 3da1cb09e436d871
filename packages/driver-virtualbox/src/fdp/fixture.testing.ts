import type { Fixture, Guest, Provocations } from '@microvmi/conformance'
import type { Vm, VmBase } from '@microvmi/core'
import { ClientProcess } from './client-process.testing.ts'
import { fdp } from './driver.ts'
import { FdpServer, type FdpServerOptions, GUEST, patternAt } from './server.testing.ts'

const MEMORY_MIB = 16
let made = 0

/**
 * A fixture whose guest lives until a case makes it vanish.
 *
 * @param inCompany with a session in another process that reads all the time
 */
export function fdpFixture(options: FdpServerOptions = {}, inCompany = false): Fixture & AsyncDisposable {
  let current: { readonly server: FdpServer; readonly guest: Guest; hasVanished: boolean } | undefined
  let companion: ClientProcess | undefined
  const stop = async () => {
    await companion?.kill()
    companion = undefined
    await current?.server[Symbol.asyncDispose]()
    current = undefined
  }
  return {
    driver: fdp,
    async guest() {
      if (current?.hasVanished) await stop()
      if (current) return current.guest
      made += 1
      const server = await FdpServer.start(`microvmi "fdp" ${process.pid} ${made}`, {
        memoryMiB: MEMORY_MIB,
        ...options,
      })
      const guest = describe(server, options, () => {
        if (current) current.hasVanished = true
        return server.kill()
      })
      current = { server, guest, hasVanished: false }
      if (inCompany) companion = await ClientProcess.start(server.name, 'hammer for ever')
      return guest
    },
    [Symbol.asyncDispose]: stop,
  }
}

function describe(server: FdpServer, options: FdpServerOptions, vanish: () => Promise<void>): Guest {
  const { vcpus = 1, isPacked = false } = options
  return {
    vm: server.name,
    options: isPacked ? { layout: 'packed' } : {},
    sessions: 'several',
    vcpuCount: vcpus,
    memory: {
      known: [
        { address: GUEST.known + 100, bytes: patternAt(GUEST.known + 100, 3 * 4096) },
        { address: 0x1000, bytes: patternAt(0x1000, 4096) },
      ],
      end: MEMORY_MIB * 2 ** 20,
      hole: { start: 0xa_0000, length: 0x6_0000 },
      scratch: { address: GUEST.scratch, length: 4 * 4096 },
    },
    registers: {
      absent: ['xcr0', 'tsc'],
      writable: { cr4: 0x26f0n, cr0: 0x8005_003bn },
      known: (vcpu) => ({
        rflags: 0x202n,
        cr0: 0x8005_0033n,
        cr4: 0x6f0n,
        efer: 0xd01n,
        cs: { selector: 0x10, base: undefined, limit: undefined, attributes: undefined },
        fs: {
          selector: (0x1000 * 33 + vcpu) & 0xffff,
          base: 0x7f00_0000_1000n + BigInt(vcpu),
          limit: undefined,
          attributes: undefined,
        },
      }),
    },
    msr: { index: 0xc000_0102, value: 0x7fff_1234_5678n },
    progressOf: (vm, vcpu) => (vm as VmBase & Vm<'memory.read'>).memory.readUint64(GUEST.counters + 8 * vcpu),
    provoke: provocations(),
    vanish,
  }
}

function provocations(): Provocations {
  const nop = { kind: 'breakpoint', address: GUEST.codeVirtual } as const
  return {
    cr: {
      request: { kind: 'cr', register: 'cr3' },
      everyVcpu: true,
      never: [
        { kind: 'cr', register: 'cr3', mask: 1n << 51n },
        { kind: 'cr', register: 'cr0' },
      ],
      check: ({ old, new: now }) => {
        const known = new Set<bigint>(GUEST.tables)
        if (!known.has(old) || !known.has(now) || old === now) throw new Error(`CR3 from ${old} to ${now}`)
      },
    },
    msr: {
      request: { kind: 'msr', msr: GUEST.lstar },
      everyVcpu: true,
      never: [{ kind: 'msr', msr: 0xc000_0081 }],
      check: ({ new: now }) => {
        if (now >> 8n !== 0xffff_ffff_8020_00n) throw new Error(`LSTAR is written with ${now.toString(16)}`)
      },
    },
    breakpoint: [
      {
        request: nop,
        everyVcpu: true,
        physicalAddress: GUEST.code,
        never: [{ ...nop, addressSpace: 0x32_0000n }],
      },
      {
        request: { kind: 'breakpoint', physicalAddress: GUEST.code + GUEST.wrmsr },
        physicalAddress: GUEST.code + GUEST.wrmsr,
      },
      {
        request: { ...nop, addressSpace: GUEST.tables[1] },
        physicalAddress: GUEST.code,
      },
    ],
    memory: [
      {
        request: { kind: 'memory', address: GUEST.counters, length: 8, access: 'w' },
        everyVcpu: true,
        never: [{ kind: 'memory', address: GUEST.scratch, length: 4096, access: 'rw' }],
      },
      { request: { kind: 'memory', address: GUEST.code, length: 64, access: 'x' }, everyVcpu: true },
    ],
    singlestep: { request: { kind: 'singlestep' }, everyVcpu: true, never: [{ kind: 'singlestep', onlyAsked: true }] },
  }
}
