import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { open } from '@microvmi/core'
import { dumpMemory } from '@microvmi/dump'
import { mock } from '@microvmi/mock'
import { describe, progress, registers, title } from './show.ts'

const EVENTS = 12

title('A guest in memory, opened like any other VM')
const vm = await open(mock, { vm: 'demo' })
const directory = mkdtempSync(join(tmpdir(), 'microvmi-demo-'))
try {
  describe(vm)

  title('Registers of each vCPU')
  for (let vcpu = 0; vcpu < vm.vcpuCount; vcpu++) registers(vcpu, vm.readRegisters(vcpu))

  title('A dump of all of its memory, paused meanwhile')
  const file = join(directory, 'demo.raw')
  const { length, written, sha256 } = await dumpMemory(vm, file, { sha256: true, onProgress: progress })
  console.log(`${length} bytes, ${written} of them not zero; SHA-256 ${sha256}`)
  console.log(`It is ${vm.runState()} again.`)

  title(`Process switches: the next ${EVENTS} writes to CR3`)
  let count = 0
  for await (const event of vm.intercept({ kind: 'cr', register: 'cr3' })) {
    console.log(`vcpu ${event.vcpu}  cr3 0x${event.old.toString(16)} -> 0x${event.new.toString(16)}`)
    if (++count === EVENTS) break
  }
  console.log('Each one held its vCPU until the loop went on. Now nothing is intercepted any more.')
} finally {
  await vm.close()
  rmSync(directory, { recursive: true, force: true })
}
