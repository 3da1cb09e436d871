import { SERVICE, USER_DATA_START } from './layout.ts'

/**
 * Names that a process's program may use for numbers: where its data are, and the kernel's services.
 */
export const PROGRAM_CONSTANTS: Readonly<Record<string, bigint>> = {
  DATA: BigInt(USER_DATA_START),
  ...Object.fromEntries(
    Object.entries(SERVICE).map(([name, number]) => [
      `SERVICE_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`,
      BigInt(number),
    ]),
  ),
}

/** Counts a round: every program does at the start of its data. */
const count = `
  mov rbx, DATA
  load64 rax, [rbx]
  add rax, 1
  store64 [rbx], rax`

/** Counts, and does nothing else. */
const counter = `
start:
${count}
  jmp start
`

/** Walks its second page of data with a xorshift generator in each 512 bytes, and keeps what it has written last. */
const walker = `
start:
${count}
  mov rsi, DATA
  add rsi, 4096
  mov rdi, 8
cell:
  load64 rax, [rsi]
  mov rdx, rax
  shl rdx, 13
  xor rax, rdx
  mov rdx, rax
  shr rdx, 7
  xor rax, rdx
  mov rdx, rax
  shl rdx, 17
  xor rax, rdx
  store64 [rsi], rax
  store64 [rbx+8], rax
  add rsi, 512
  sub rdi, 1
  jne cell
  jmp start
`

const call = (service: keyof typeof SERVICE): string => `  mov rax, ${SERVICE[service]}\n  syscall`

/** Calls every service of the kernel, and does in the process what events there are for. */
const caller = `
start:
${count}
  mov rdi, 0
${call('identify')}
  load64 rdi, [rbx]
${call('setPointer')}
  mov rdi, 46
${call('put')}
${call('clock')}
  mov rdi, 7
${call('call')}
${call('tables')}
${call('control')}
${call('privileged')}
${call('debug')}
${call('breakpoint')}
  mov rax, 1
  mov rcx, 0
  cpuid
own_breakpoint:
  int3
  int 3
  int1
  rdtsc
  mov rdx, 100
pause:
  sub rdx, 1
  jne pause
${call('yield')}
  jmp start
`

/** Sleeps most of the time. */
const sleeper = `
start:
${count}
${call('sleep')}
  jmp start
`

/** The programs that a process can run by name. */
export const PROGRAMS = { counter, walker, caller, sleeper } as const

export type ProgramName = keyof typeof PROGRAMS
