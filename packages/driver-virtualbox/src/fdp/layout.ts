/**
 * The shared memory of FDP, the Fast Debugging Protocol of a patched VirtualBox: what lies where. From icebox,
 * src/FDP/include/FDP_structs.h and FDP_enum.h; sizes and offsets as a compiler lays them out on x86-64.
 */

/** FDP_MAX_DATA_SIZE: what one direction carries at most. */
const CANAL_SIZE = 10 * 2 ** 20

const CANAL_LENGTH = CANAL_SIZE + 8
const TO_SERVER = 4
const TO_CLIENT = TO_SERVER + CANAL_LENGTH

/** Where the parts of one direction (FDP_SHM_CANAL) lie in the channel. */
export interface CanalPlace {
  readonly data: number
  /** A 32-bit number. */
  readonly size: number
  readonly lock: number
  readonly present: number
  readonly status: number
}

function canalAt(start: number): CanalPlace {
  const end = start + CANAL_SIZE
  return { data: start, size: end, lock: end + 4, present: end + 5, status: end + 6 }
}

/** FDP_SHM_SHARED. */
export const CHANNEL = {
  length: TO_CLIENT + CANAL_LENGTH,
  /** Held by a client from before its request until after the reply. */
  lock: 0,
  /** Set by the server when a vCPU has stopped at a breakpoint. */
  stateChanged: 2,
  toServer: canalAt(TO_SERVER),
  toClient: canalAt(TO_CLIENT),
} as const

/** `CPU_` before the VM's name: the server's second object, with the registers of vCPU 0. */
export const CONTEXT_PREFIX = 'CPU_'
/** FDP_CPU_CTX: 28 registers of 8 bytes. */
export const CONTEXT_LENGTH = 224

/** FDPCMD_*, of those that the server in VirtualBox answers. */
export const COMMAND = {
  readPhysical: 2,
  readRegister: 3,
  readMsr: 4,
  writeMsr: 5,
  memorySize: 6,
  pause: 7,
  resume: 8,
  unsetBreakpoint: 11,
  setBreakpoint: 12,
  virtualToPhysical: 13,
  writePhysical: 14,
  state: 16,
  writeRegister: 18,
  singleStep: 21,
  vcpuCount: 22,
  vcpuState: 23,
} as const

/** FDP_STATE_*. */
export const STATE = { paused: 1, breakpointHit: 2 } as const

/** FDP_*BP types, of those that the server in VirtualBox handles: debug registers are not among them. */
export const BREAKPOINT = { soft: 1, page: 3, msr: 4, cr: 5 } as const

/** FDP_EXECUTE_BP, FDP_WRITE_BP, FDP_READ_BP. */
export const ACCESS = { execute: 1, write: 2, read: 4 } as const

/** FDP_VIRTUAL_ADDRESS, FDP_PHYSICAL_ADDRESS. */
export const ADDRESS_TYPE = { virtual: 1, physical: 2 } as const

/** What the server says for a register that it does not serve (DBGCTcp.cpp, FDPVBOX_readRegister). */
export const NOT_SERVED = 0xbadb_adba_dbad_badbn

/** FDP_*_REGISTER. */
export const REGISTER = {
  ...{ rax: 0, rbx: 1, rcx: 2, rdx: 3, r8: 4, r9: 5, r10: 6, r11: 7, r12: 8, r13: 9, r14: 10, r15: 11 },
  ...{ rsp: 12, rbp: 13, rsi: 14, rdi: 15, rip: 16, dr0: 17, dr1: 18, dr2: 19, dr3: 20, dr6: 21, dr7: 22 },
  ...{ cs: 29, ds: 30, es: 31, fs: 32, gs: 33, ss: 34, rflags: 35, gdtBase: 37, gdtLimit: 38, idtBase: 39 },
  ...{ idtLimit: 40, cr0: 41, cr2: 42, cr3: 43, cr4: 44, cr8: 45, ldt: 46, ldtBase: 47, ldtLimit: 48, tr: 49 },
} as const

export type FdpRegister = keyof typeof REGISTER

/**
 * Where the fields of requests lie: as a Linux compiler aligns them, or packed as the Windows build has them. Each
 * command's fields are in the order of its struct; the first byte is the command.
 */
export interface RequestLayout {
  readonly vcpu: number
  readonly readPhysical: { readonly address: number; readonly size: number; readonly length: number }
  readonly readRegister: { readonly register: number; readonly length: number }
  readonly msr: { readonly index: number; readonly value: number; readonly readLength: number; readonly length: number }
  readonly unsetBreakpoint: { readonly id: number; readonly length: number }
  readonly setBreakpoint: {
    readonly type: number
    readonly id: number
    readonly access: number
    readonly addressType: number
    readonly address: number
    readonly size: number
    readonly cr3: number
    readonly length: number
  }
  readonly virtualToPhysical: { readonly address: number; readonly length: number }
  readonly writePhysical: {
    readonly address: number
    readonly size: number
    readonly data: number
    /** Bytes sent beyond the data: the size of the struct, its padding included. */
    readonly length: number
  }
  readonly writeRegister: { readonly register: number; readonly value: number; readonly length: number }
  /** A request of a command and a vCPU alone. */
  readonly vcpuLength: number
}

export const NATURAL: RequestLayout = {
  vcpu: 4,
  readPhysical: { address: 8, size: 16, length: 24 },
  readRegister: { register: 8, length: 12 },
  msr: { index: 8, value: 16, readLength: 16, length: 24 },
  unsetBreakpoint: { id: 4, length: 8 },
  setBreakpoint: { type: 8, id: 12, access: 16, addressType: 18, address: 24, size: 32, cr3: 40, length: 48 },
  virtualToPhysical: { address: 8, length: 16 },
  writePhysical: { address: 8, size: 16, data: 20, length: 24 },
  writeRegister: { register: 8, value: 16, length: 24 },
  vcpuLength: 8,
}

export const PACKED: RequestLayout = {
  vcpu: 1,
  readPhysical: { address: 5, size: 13, length: 17 },
  readRegister: { register: 5, length: 7 },
  msr: { index: 5, value: 13, readLength: 13, length: 21 },
  unsetBreakpoint: { id: 1, length: 5 },
  setBreakpoint: { type: 5, id: 7, access: 11, addressType: 13, address: 15, size: 23, cr3: 31, length: 39 },
  virtualToPhysical: { address: 5, length: 13 },
  writePhysical: { address: 1, size: 9, data: 13, length: 13 },
  writeRegister: { register: 5, value: 7, length: 15 },
  vcpuLength: 5,
}
