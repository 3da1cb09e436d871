import { closeSync, ftruncateSync, openSync, rmSync, writeSync } from 'node:fs'
import type { Vm } from '@microvmi/core'
import { dumpMemory } from '@microvmi/dump'

/** What the paper's tasks need of a VM. */
export type PaperVm = Vm<'memory.read' | 'memory.regions' | 'pause' | 'registers.read' | 'events.cr'>

/** Bytes of a piece: 1,024 pages. */
const PIECE = 2 ** 22

/** Nanoseconds for the physical memory from 0 to `length` in a file, of a paused VM; holes are holes. */
export async function dump(vm: PaperVm, length: number, file: string): Promise<number> {
  rmSync(file, { force: true })
  const started = performance.now()
  const fd = openSync(file, 'wx', 0o600)
  const lease = vm.pause()
  try {
    for await (const { address, bytes } of vm.memory.pieces({ within: { start: 0, length }, pieceLength: PIECE })) {
      if (bytes) writeSync(fd, bytes, 0, bytes.length, address)
    }
    ftruncateSync(fd, length)
  } finally {
    lease.end()
    closeSync(fd)
  }
  return nanosecondsSince(started)
}

/** Nanoseconds for a dump as an app has it made: all memory, zeros left out. */
export async function wholeDump(vm: PaperVm, file: string): Promise<number> {
  rmSync(file, { force: true })
  const started = performance.now()
  await dumpMemory(vm, file)
  return nanosecondsSince(started)
}

/** Nanoseconds for all registers of vCPU 0, of a paused VM. */
export function registers(vm: PaperVm, reads: number): number {
  return atRest(vm, reads, () => vm.readRegisters(0))
}

/** Nanoseconds for a read of one page, again and again, of a paused VM. */
export function pageRead(vm: PaperVm, address: number, reads: number): number {
  const into = new Uint8Array(4096)
  return atRest(vm, reads, () => vm.memory.read(address, into))
}

/** Nanoseconds for a read of a word, again and again, of a paused VM. */
export function wordRead(vm: PaperVm, address: number, reads: number): number {
  return atRest(vm, reads, () => vm.memory.readUint64(address))
}

function atRest(vm: PaperVm, times: number, work: () => void): number {
  const lease = vm.pause()
  try {
    const started = performance.now()
    for (let time = 0; time < times; time++) work()
    return nanosecondsSince(started) / times
  } finally {
    lease.end()
  }
}

/** Events a second: writes of CR3, `events` of them for each value. */
export async function cr3Events(
  vm: PaperVm,
  { events, values, asynchronous = false }: { events: number; values: number; asynchronous?: boolean },
): Promise<number[]> {
  const rates: number[] = []
  let seen = 0
  let started = 0
  const intercept = vm.intercept({ kind: 'cr', register: 'cr3', asynchronous }, () => {
    seen += 1
    // The first ones say when the guest has come by.
    if (seen % events !== 0 || rates.length === values) return
    const now = performance.now()
    if (seen > events) rates.push((events / (now - started)) * 1000)
    started = now
    if (rates.length === values) intercept.close()
  })
  await intercept.ended
  return rates
}

function nanosecondsSince(started: number): number {
  return (performance.now() - started) * 1e6
}
