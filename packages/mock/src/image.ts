import { badArgument } from '@microvmi/core/driver'
import { assemble, type Program } from './assembler.ts'
import { BREAKPOINT } from './exceptions.ts'
import { handlerLabel, kernel, SAVED_LENGTH } from './kernel.ts'
import {
  CPU,
  DIRECT_MAP,
  GDT_LENGTH,
  INTERRUPT_TABLE,
  KERNEL_TEXT,
  TASK,
  TSS_LENGTH,
  USER_DATA_START,
  USER_STACK_END,
  USER_TEXT,
} from './layout.ts'
import type { ProcessOptions, SettledOptions } from './options.ts'
import { AddressSpace, canonical, uncanonical } from './page-tables.ts'
import type { PhysicalMemory } from './physical-memory.ts'
import { PROGRAM_CONSTANTS, PROGRAMS } from './programs.ts'
import { Random } from './random.ts'
import { INTERRUPTS, KERNEL_CODE, KERNEL_DATA, RESERVED_FLAG, TASK_SELECTOR, USER_CODE, USER_DATA } from './vcpu.ts'

const PAGE = 4096
const LARGE_PAGE = 0x20_0000
const LONGEST_PROGRAM = 4 * PAGE
const STACK_PAGES = 2

const KERNEL_RX = { writable: false, user: false, executable: true }
const KERNEL_RW = { writable: true, user: false, executable: false }
const USER_RX = { writable: false, user: true, executable: true }
const USER_RW = { writable: true, user: true, executable: false }

/** A task of the guest as it was built. */
export interface Task {
  readonly name: string
  readonly pid: number
  readonly vcpu: number
  readonly space: AddressSpace
  readonly program: Program
  /** Guest-physical address of its page, with its structure and its kernel stack. */
  readonly page: number
  /** Guest-physical addresses of its pages of data. */
  readonly data: readonly number[]
}

/** What was put into the guest's memory. */
export interface Image {
  readonly kernel: AddressSpace
  readonly tasks: readonly Task[]
  /** Guest-physical address of each vCPU's page. */
  readonly cpus: readonly number[]
}

/** Builds the guest's memory as it is at power on. The same options give the same, byte for byte. */
export function buildImage(memory: PhysicalMemory, options: SettledOptions): Image {
  return new Builder(memory, options).build()
}

class Builder {
  readonly #memory: PhysicalMemory
  readonly #options: SettledOptions
  readonly #random: Random
  readonly #used = new Set<number>()
  readonly #kernel: AddressSpace

  constructor(memory: PhysicalMemory, options: SettledOptions) {
    this.#memory = memory
    this.#options = options
    this.#random = new Random(options.seed)
    this.#kernel = new AddressSpace(memory, () => this.#allocate())
  }

  build(): Image {
    this.#rom()
    for (const { start, length, kind } of this.#memory.ranges) {
      if (kind !== 'ram') continue
      const first = start - (start % LARGE_PAGE)
      for (let address = first; address < start + length; address += LARGE_PAGE) {
        // Low RAM and the RAM behind the ROM share the first 2 MiB.
        if (address === 0 && start > 0) continue
        this.#kernel.map(DIRECT_MAP + address, address, KERNEL_RW, LARGE_PAGE)
      }
    }
    this.#load(this.#kernel, KERNEL_TEXT, kernel.bytes, KERNEL_RX)
    this.#interruptTable()
    const cpus = Array.from({ length: this.#options.vcpus + this.#options.spareVcpus }, (_, number) =>
      this.#cpu(number),
    )
    const tasks = this.#tasks(cpus)
    return { kernel: this.#kernel, tasks, cpus }
  }

  /** A page of RAM that nothing else has, anywhere from 1 MiB on. */
  #allocate(): number {
    const ranges = this.#memory.ranges.filter(({ start, kind }) => kind === 'ram' && start > 0)
    const pages = ranges.reduce((sum, { length }) => sum + length / PAGE, 0)
    if (this.#used.size >= pages / 2) throw badArgument('memory is too small for these processes: give the guest more')
    for (;;) {
      let index = this.#random.between(0, pages - 1)
      for (const { start, length } of ranges) {
        if (index < length / PAGE) {
          const address = start + index * PAGE
          if (this.#used.has(address)) break
          this.#used.add(address)
          return address
        }
        index -= length / PAGE
      }
    }
  }

  #view(address: number): DataView {
    const page = this.#memory.page(address / PAGE)
    if (!page) throw new RangeError(`no memory at 0x${address.toString(16)}`)
    return page.view
  }

  /** The last 16 bytes as on a PC, where a vCPU would begin: a jump, and a date. */
  #rom(): void {
    const text = new TextEncoder().encode('microvmi mock ROM')
    this.#memory.write(0xf_0000, text)
    this.#memory.write(0xf_fff0, new Uint8Array([0xe9, 0, 0, 0, 0]))
  }

  /** Maps pages for these bytes, and puts them there. */
  #load(space: AddressSpace, virtual: number, bytes: Uint8Array, rights: typeof KERNEL_RX): void {
    for (let offset = 0; offset < bytes.length; offset += PAGE) {
      const physical = this.#allocate()
      this.#memory.write(physical, bytes.subarray(offset, offset + PAGE))
      space.map(virtual + offset, physical, rights)
    }
  }

  #interruptTable(): void {
    const table = new DataView(new ArrayBuffer(PAGE))
    for (let vector = 0; vector < 256; vector++) {
      const handler = kernel.labels.get(handlerLabel(vector)) ?? 0n
      const gate = vector * 16
      // An interrupt gate (Intel SDM volume 3A, figure 6-8); processes may use the breakpoint's.
      table.setUint16(gate, Number(handler & 0xffffn), true)
      table.setUint16(gate + 2, KERNEL_CODE.selector, true)
      table.setUint8(gate + 5, vector === BREAKPOINT ? 0xee : 0x8e)
      table.setUint16(gate + 6, Number((handler >> 16n) & 0xffffn), true)
      table.setUint32(gate + 8, Number(handler >> 32n), true)
    }
    this.#load(this.#kernel, INTERRUPT_TABLE, new Uint8Array(table.buffer), KERNEL_RW)
  }

  #cpu(number: number): number {
    const page = this.#allocate()
    const view = this.#view(page)
    const base = DIRECT_MAP + page
    view.setUint32(CPU.number, number, true)
    view.setUint16(CPU.gdtPointer, GDT_LENGTH - 1, true)
    view.setBigUint64(CPU.gdtPointer + 2, canonical(base + CPU.gdt), true)
    view.setUint16(CPU.idtPointer, PAGE - 1, true)
    view.setBigUint64(CPU.idtPointer + 2, canonical(INTERRUPT_TABLE), true)
    // Flat segments (Intel SDM volume 3A, figure 3-8), in the order of the selectors.
    for (const { selector, attributes } of [KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA]) {
      const descriptor = 0x000f_0000_0000_ffffn | (BigInt(attributes ?? 0) << 40n)
      view.setBigUint64(CPU.gdt + (selector & ~7), descriptor, true)
    }
    const tss = canonical(base + CPU.tss)
    const low = BigInt(TSS_LENGTH - 1) | ((tss & 0xff_ffffn) << 16n) | (0x89n << 40n) | (((tss >> 24n) & 0xffn) << 56n)
    view.setBigUint64(CPU.gdt + TASK_SELECTOR, low, true)
    view.setBigUint64(CPU.gdt + TASK_SELECTOR + 8, tss >> 32n, true)
    return page
  }

  #tasks(cpus: readonly number[]): Task[] {
    const { vcpus, processes } = this.#options
    const tasks = processes.map((process, index) => this.#process(process, index + 1, index % vcpus))
    for (let vcpu = vcpus; vcpu < cpus.length; vcpu++) {
      tasks.push(this.#process({ name: `spare/${vcpu}` }, tasks.length + 1, vcpu))
    }
    for (const vcpu of cpus.keys()) {
      if (tasks.filter((task) => task.vcpu === vcpu).length < 2) tasks.push(this.#idle(vcpu))
    }
    for (const [index, task] of tasks.entries()) {
      const own = tasks.filter(({ vcpu }) => vcpu === task.vcpu)
      const next = own[(own.indexOf(task) + 1) % own.length] ?? task
      const cpu = cpus[task.vcpu] ?? 0
      const view = this.#view(task.page)
      view.setBigUint64(TASK.next, canonical(DIRECT_MAP + next.page), true)
      view.setBigUint64(TASK.cpu, canonical(DIRECT_MAP + cpu), true)
      view.setBigUint64(TASK.nextOfAll, canonical(DIRECT_MAP + (tasks[(index + 1) % tasks.length] ?? task).page), true)
      if (own[0] === task) this.#view(cpu).setBigUint64(CPU.current, canonical(DIRECT_MAP + task.page), true)
    }
    return tasks
  }

  #process(options: ProcessOptions, pid: number, vcpu: number): Task {
    const { name, program: chosen = 'counter', dataPages = 4 } = options
    const text = typeof chosen === 'string' ? PROGRAMS[chosen] : chosen.source
    const program = assemble(text, canonical(USER_TEXT), PROGRAM_CONSTANTS)
    if (program.bytes.length === 0 || program.bytes.length > LONGEST_PROGRAM) {
      throw badArgument(`the program of ${name} has ${program.bytes.length} bytes, not 1 to ${LONGEST_PROGRAM}`)
    }
    const space = new AddressSpace(this.#memory, () => this.#allocate())
    space.shareKernelOf(this.#kernel)
    this.#load(space, USER_TEXT, program.bytes, USER_RX)
    const data = Array.from({ length: dataPages }, (_, index) => {
      const physical = this.#allocate()
      if (index > 0) this.#fill(physical)
      space.map(USER_DATA_START + index * PAGE, physical, USER_RW)
      return physical
    })
    for (let index = 1; index <= STACK_PAGES; index++) {
      space.map(USER_STACK_END - index * PAGE, this.#allocate(), USER_RW)
    }
    const frame = { rip: USER_TEXT, code: USER_CODE, stack: USER_DATA, rsp: USER_STACK_END }
    const page = this.#task(name, pid, space, frame)
    return { name, pid, vcpu, space, program, page, data }
  }

  #idle(vcpu: number): Task {
    const name = `idle/${vcpu}`
    const rip = uncanonical(kernel.labels.get('idle') ?? 0n) ?? 0
    const page = this.#task(name, 0, this.#kernel, { rip, code: KERNEL_CODE, stack: KERNEL_DATA, rsp: undefined })
    return { name, pid: 0, vcpu, space: this.#kernel, program: kernel, page, data: [] }
  }

  /** A task's page: its structure, and on its kernel stack what `leave` in the kernel expects. */
  #task(
    name: string,
    pid: number,
    space: AddressSpace,
    frame: { rip: number; code: typeof USER_CODE; stack: typeof USER_DATA; rsp: number | undefined },
  ): number {
    const page = this.#allocate()
    const view = this.#view(page)
    const rsp = canonical(frame.rsp ?? DIRECT_MAP + page + PAGE)
    this.#memory.write(page + TASK.name, new TextEncoder().encode(name))
    view.setUint32(TASK.pid, pid, true)
    view.setBigUint64(TASK.cr3, BigInt(space.root), true)
    view.setBigUint64(TASK.stack, canonical(DIRECT_MAP + page + PAGE - 40 - SAVED_LENGTH), true)
    view.setBigUint64(TASK.entry, canonical(frame.rip), true)
    view.setBigUint64(TASK.userStack, rsp, true)
    view.setBigUint64(TASK.threadPointer, canonical(USER_DATA_START + pid * 64), true)
    view.setBigUint64(PAGE - 40, canonical(frame.rip), true)
    view.setBigUint64(PAGE - 32, BigInt(frame.code.selector), true)
    view.setBigUint64(PAGE - 24, BigInt(INTERRUPTS | RESERVED_FLAG), true)
    view.setBigUint64(PAGE - 16, rsp, true)
    view.setBigUint64(PAGE - 8, BigInt(frame.stack.selector), true)
    return page
  }

  #fill(address: number): void {
    const view = this.#view(address)
    for (let offset = 0; offset < PAGE; offset += 4) view.setUint32(offset, this.#random.next(), true)
  }
}
