/**
 * What Xen saves of a whole HVM or PVH domain: records one behind the other, each with a struct hvm_save_descriptor
 * before it, of a type code and an instance of 16 bits and a length of 32 (xen/include/public/hvm/save.h).
 */
import { CPU, LAPIC_REGISTERS, MTRR, TASK_PRIORITY, takesInterrupts, XSAVE } from './hvm-context.ts'

const DESCRIPTOR = 8
/** HVM_SAVE_CODE of the header, which is first, and of the end. */
const HEADER = 1
const END = 0

interface SavedRecord {
  readonly code: number
  readonly instance: number
  readonly contents: DataView
  /** With its descriptor. */
  readonly bytes: Uint8Array
}

/** The records, up to the first that is cut short. */
function* recordsOf(saved: Uint8Array): Generator<SavedRecord> {
  const view = new DataView(saved.buffer, saved.byteOffset, saved.byteLength)
  for (let at = 0; at + DESCRIPTOR <= view.byteLength; ) {
    const length = view.getUint32(at + 4, true)
    const start = at + DESCRIPTOR
    const end = start + length
    if (end > view.byteLength) return
    yield {
      code: view.getUint16(at, true),
      instance: view.getUint16(at + 2, true),
      contents: new DataView(saved.buffer, saved.byteOffset + start, length),
      bytes: saved.subarray(at, end),
    }
    at = end
  }
}

/** The contents of a record; `undefined` where there is none. */
export function findRecord(saved: Uint8Array, code: number, instance: number): DataView | undefined {
  for (const record of recordsOf(saved)) {
    if (record.code === code && record.instance === instance) return record.contents
  }
  return undefined
}

/** Loading a vCPU's registers sets its vector registers and its PAT back: these are loaded behind them. */
const LOADED: ReadonlySet<number> = new Set([HEADER, CPU.code, XSAVE.code, MTRR.code, END])

/**
 * What of a saved domain is its vCPUs' registers, to be loaded by itself. The rest has moved on since it was saved,
 * pauses or not: an interrupt that has come since is in a vCPU's local APIC, the guest is told of it once, and without
 * it the vCPU stands for good. Of all vCPUs: those that it finds no registers of, hvm_load() takes down.
 */
export function registersIn(saved: Uint8Array): Uint8Array {
  return Buffer.concat([...recordsOf(saved)].filter(({ code }) => LOADED.has(code)).map(({ bytes }) => bytes))
}

/** Local APIC: in-service registers, 32 vectors each (Intel SDM volume 3A, table 11-1). */
const IN_SERVICE = 0x100
const IN_SERVICE_REGISTERS = 8
const REGISTER_DISTANCE = 0x10

/**
 * Whether a vCPU is about to take an interrupt, which loading its registers would drop (Xen, svm_vmcb_restore() and
 * vmx_vmcs_restore()): its local APIC has it in service, and the vCPU still takes interrupts of its class.
 */
export function hasInterruptUnderWay(saved: Uint8Array): boolean {
  for (const { code, instance, contents } of recordsOf(saved)) {
    if (code !== LAPIC_REGISTERS.code || contents.byteLength < LAPIC_REGISTERS.length) continue
    const vector = highestInService(contents)
    const cpu = findRecord(saved, CPU.code, instance)
    if (vector === 0 || !cpu || cpu.byteLength < CPU.length) continue
    if (takesInterrupts(cpu) && vector >>> 4 > contents.getUint32(TASK_PRIORITY, true) >>> 4) return true
  }
  return false
}

/** 0 where none is: the first 16 vectors are the processor's own. */
function highestInService(lapic: DataView): number {
  for (let index = IN_SERVICE_REGISTERS - 1; index >= 0; index--) {
    const vectors = lapic.getUint32(IN_SERVICE + index * REGISTER_DISTANCE, true)
    if (vectors !== 0) return 32 * index + 31 - Math.clz32(vectors)
  }
  return 0
}
