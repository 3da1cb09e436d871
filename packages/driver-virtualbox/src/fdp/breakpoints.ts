import type { InterceptRequest } from '@microvmi/core/driver'
import { badArgument, MicrovmiError, PAGE_SIZE, pageStart } from '@microvmi/core/driver'
import type { FdpClient } from './client.ts'
import { ACCESS, BREAKPOINT } from './layout.ts'
import { translate } from './translate.ts'

type Request<K extends InterceptRequest['kind']> = Extract<InterceptRequest, { kind: K }>

/** A breakpoint as the server is asked for it. */
export interface Placement {
  readonly type: (typeof BREAKPOINT)[keyof typeof BREAKPOINT]
  readonly access: number
  /** Guest-physical; for a control register its number, for an MSR its index. */
  readonly address: number
  readonly size: number
}

/** MOV to CRn says its number in three bits (Intel SDM volume 2B, MOV—Move to/from Control Registers). */
const CONTROL_REGISTERS = { cr0: 0, cr3: 3, cr4: 4 } as const

/** Where the server is to break for a request. Throws `UNSUPPORTED` and `BAD_ARGUMENT`; the VM is paused. */
export function placementOf(request: InterceptRequest, client: FdpClient): Placement {
  switch (request.kind) {
    case 'cr': {
      if (request.register === 'xcr0') throw unsupported('events of XCR0')
      return { type: BREAKPOINT.cr, access: ACCESS.write, address: CONTROL_REGISTERS[request.register], size: 1 }
    }
    case 'msr':
      return { type: BREAKPOINT.msr, access: ACCESS.write, address: request.msr, size: 1 }
    case 'breakpoint':
      // The server has a type for them, and refuses it (DBGCTcp.cpp, FDPVBOX_setBreakpoint).
      if (request.method === 'hardware') throw unsupported('breakpoints in debug registers: leave `method` away')
      return { type: BREAKPOINT.soft, access: ACCESS.execute, address: physicalOf(request, client), size: 1 }
    case 'memory': {
      if (request.view !== undefined) throw unsupported('views')
      const start = pageStart(request.address)
      const size = pageStart(request.address + request.length - 1) - start + PAGE_SIZE
      return { type: BREAKPOINT.page, access: accessOf(request.access), address: start, size }
    }
    default:
      throw unsupported(`events of kind ${request.kind}`)
  }
}

function accessOf(access: Request<'memory'>['access']): number {
  const letters = { r: ACCESS.read, w: ACCESS.write, x: ACCESS.execute }
  return [...access].reduce((bits, letter) => bits | letters[letter as 'r'], 0)
}

function physicalOf(request: Request<'breakpoint'>, client: FdpClient): number {
  if ('physicalAddress' in request) return request.physicalAddress
  const { address, addressSpace } = request
  if (typeof address !== 'bigint') throw badArgument('a breakpoint has an address (bigint) or a physicalAddress')
  const physical = addressSpace === undefined ? anyVcpu(client, address) : translate(client, addressSpace, address)
  if (physical !== undefined) return physical
  const where = addressSpace === undefined ? 'of the vCPUs now' : `0x${addressSpace.toString(16)}`
  throw badArgument(
    `0x${address.toString(16)} is not mapped in the address space ${where}: give addressSpace, or the physicalAddress`,
  )
}

function anyVcpu(client: FdpClient, address: bigint): number | undefined {
  for (let vcpu = 0; vcpu < client.vcpuCount(); vcpu++) {
    const physical = client.virtualToPhysical(vcpu, address)
    if (physical !== 0n) return Number(physical)
  }
  return undefined
}

function unsupported(what: string): MicrovmiError {
  return new MicrovmiError('UNSUPPORTED', `the FDP server has no ${what}`)
}

/** Bytes of `mov crN, reg` without a prefix: two of opcode, one that names the registers. */
export const MOVE_LENGTH = 3

/**
 * The control register that the instruction whose last bytes these are writes, if it does: 0F 22 /r. A prefix makes
 * CR8 of CR0; the server has no breakpoints for that one.
 */
export function controlRegisterWritten(before: Uint8Array): number | undefined {
  const [first, second, registers = 0] = before.subarray(-MOVE_LENGTH)
  return first === 0x0f && second === 0x22 ? (registers >> 3) & 7 : undefined
}

/** Whether an instruction is WRMSR: 0F 30. */
export function isWrmsr(instruction: Uint8Array): boolean {
  return instruction[0] === 0x0f && instruction[1] === 0x30
}
