import { assemble, type Program } from './assembler.ts'
import { BREAKPOINT, DEBUG, NON_MASKABLE, TIMER, WITH_ERROR_CODE } from './exceptions.ts'
import { CLOCK_PORT, CONSOLE_PORT, CPU, KERNEL_TEXT, SERVICE, TASK } from './layout.ts'
import { MSR } from './msrs.ts'
import { canonical } from './page-tables.ts'
import { TASK_SELECTOR } from './vcpu.ts'

/** What is saved on the kernel stack, in the order in which it is pushed. */
const SAVED = ['rax', 'rcx', 'rdx', 'rbx', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15']
/** Bytes of it. Above: the error code of a fault, or the frame of iret. */
export const SAVED_LENGTH = SAVED.length * 8

const save = SAVED.map((register) => `  push ${register}`).join('\n')
const restore = [...SAVED]
  .reverse()
  .map((register) => `  pop ${register}`)
  .join('\n')
const count = (what: string): string => `  load64 rax, [${what}]\n  add rax, 1\n  store64 [${what}], rax`
/** Leaves the task in r15 and the vCPU's page in r14. */
const whereAmI = `  mov r15, rsp
  and r15, -4096
  load64 r14, [r15+${TASK.cpu}]`
/** From a register to rdx and rax, for wrmsr. */
const halves = (register: string): string => `  mov rax, ${register}\n  mov rdx, ${register}\n  shr rdx, 32`

const dispatch = Object.entries(SERVICE)
  .map(([name, number]) => `  cmp rax, ${number}\n  je ${name === 'yield' ? 'schedule' : `service_${name}`}`)
  .join('\n')

const source = `
start:                          ; a vCPU begins here, its page in rdi
  mov r14, rdi
  mov rsi, r14
  add rsi, ${CPU.gdtPointer}
  lgdt [rsi]
  mov rsi, r14
  add rsi, ${CPU.idtPointer}
  lidt [rsi]
  mov rax, ${TASK_SELECTOR}
  ltr rax
  mov rbx, system_call
${halves('rbx')}
  mov rcx, ${MSR.lstar}
  wrmsr
  load64 r13, [r14+${CPU.current}]
  jmp enter

timer:
${save}
${whereAmI}
${count(`r14+${CPU.ticks}`)}
schedule:                       ; the task in r15 makes room for the next one
  store64 [r15+${TASK.stack}], rsp
  load64 r13, [r15+${TASK.next}]
  cmp r13, r15
  je leave
enter:                          ; the task in r13 goes on
  mov rbx, r13
  add rbx, 4096
  store64 [r14+${CPU.tss + 4}], rbx
  store64 [r14+${CPU.current}], r13
  load64 rbx, [r13+${TASK.threadPointer}]
${halves('rbx')}
  mov rcx, ${MSR.fsBase}
  wrmsr
${count(`r13+${TASK.switches}`)}
  load64 rbx, [r13+${TASK.cr3}]
switch:
  mov cr3, rbx
  load64 rsp, [r13+${TASK.stack}]
leave:
${restore}
  iret

breakpoint:
${save}
${whereAmI}
${count(`r15+${TASK.breakpoints}`)}
  jmp leave

debug:
${save}
${whereAmI}
${count(`r15+${TASK.debugExceptions}`)}
  jmp leave

non_maskable:
${save}
${whereAmI}
${count(`r14+${CPU.nonMaskable}`)}
  jmp leave

device:
${save}
${whereAmI}
${count(`r14+${CPU.interrupts}`)}
  jmp leave

fault:                          ; without an error code: one is made up
  push rax
fault_with_code:
${save}
${whereAmI}
${count(`r15+${TASK.faults}`)}
  load64 rax, [rsp+${SAVED_LENGTH + 16}] ; cs
  and rax, 3
  cmp rax, 0
  je faulted
  load64 rax, [r15+${TASK.entry}] ; a process that faults begins again
  store64 [rsp+${SAVED_LENGTH + 8}], rax
  load64 rax, [r15+${TASK.userStack}]
  store64 [rsp+${SAVED_LENGTH + 32}], rax
faulted:
${restore}
  add rsp, 8
  iret

system_call:                    ; service in rax, argument in rdi, result in rax
${save}
${whereAmI}
  load64 rbx, [r15+${TASK.systemCalls}]
  add rbx, 1
  store64 [r15+${TASK.systemCalls}], rbx
${dispatch}
  mov rax, 0
  sub rax, 1
serviced:
  store64 [rsp+${SAVED_LENGTH - 8}], rax
  jmp leave

service_identify:
  mov rax, rdi
  mov rcx, 0
  cpuid
  jmp serviced

service_setPointer:
${halves('rdi')}
  mov rcx, ${MSR.kernelGsBase}
  wrmsr
  mov rax, 0
  jmp serviced

service_put:
  mov rax, rdi
  out8 ${CONSOLE_PORT}
  jmp serviced

service_clock:
  mov rax, 0
  in8 ${CLOCK_PORT}
  jmp serviced

service_call:
  mov rax, rdi
  vmcall
  jmp serviced

service_tables:
  mov rsi, r14
  add rsi, ${CPU.scratch}
  sgdt [rsi]
  sidt [rsi]
  sldt rax
  str rax
  mov rsi, r14
  add rsi, ${CPU.gdtPointer}
  lgdt [rsi]
  mov rsi, r14
  add rsi, ${CPU.idtPointer}
  lidt [rsi]
  mov rbx, 0
  lldt rbx
  jmp serviced

service_control:
  mov rbx, cr0
  xor rbx, 8                    ; TS
  mov cr0, rbx
  mov rbx, cr4
  xor rbx, 4                    ; TSD
  mov cr4, rbx
  mov rcx, 0
  xgetbv
  xor rax, 4                    ; AVX
  xsetbv
  mov rax, 0
  jmp serviced

service_privileged:
  smc
  mov rax, 0
  jmp serviced

service_debug:
  int1
  mov rax, 0
  jmp serviced

service_breakpoint:
  int3
  mov rax, 0
  jmp serviced

service_sleep:
  sti
  hlt
  cli
  mov rax, 0
  jmp serviced

idle:                           ; what a vCPU does that has fewer than two processes
  hlt
  jmp idle
`

/** The kernel, assembled for where it lies. */
export const kernel: Program = assemble(source, canonical(KERNEL_TEXT))

/** The label of the handler of a vector. */
export function handlerLabel(vector: number): string {
  switch (vector) {
    case DEBUG:
      return 'debug'
    case NON_MASKABLE:
      return 'non_maskable'
    case BREAKPOINT:
      return 'breakpoint'
    case TIMER:
      return 'timer'
    default:
      return vector > TIMER ? 'device' : WITH_ERROR_CODE.has(vector) ? 'fault_with_code' : 'fault'
  }
}
