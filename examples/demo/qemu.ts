import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import { open } from '@microvmi/core'
import { kvm } from '@microvmi/driver-kvm'
import { dumpMemory } from '@microvmi/dump'
import { LabUnavailable, monitor, startQemu } from '@microvmi/lab-qemu'
import { describe, progress, registers, title } from './show.ts'

const MEMORY_MIB = 512

title('A Linux guest under stock QEMU, from Debian packages (fetched the first time)')
try {
  await demo()
} catch (error) {
  if (!(error instanceof LabUnavailable)) throw error
  console.error(`The guest cannot come up on this machine: ${error.message}`)
  process.exitCode = 1
}

async function demo(): Promise<void> {
  const started = performance.now()
  const lab = await startQemu({ name: 'demo', memoryMiB: MEMORY_MIB, vcpus: 2 })
  try {
    const { known } = await lab.ready()
    console.log(`up after ${((performance.now() - started) / 1000).toFixed(1)} s`)
    const vm = await open(kvm, { vm: lab.qmp })
    try {
      describe(vm)

      title('Registers of each vCPU, while it runs')
      for (let vcpu = 0; vcpu < vm.vcpuCount; vcpu++) registers(vcpu, vm.readRegisters(vcpu))

      title('What a process of the guest has put into its memory')
      const text = new Uint8Array(14)
      vm.memory.read(known.physical[0] ?? 0, text)
      console.log(`at 0x${known.physical[0]?.toString(16)}: ${new TextDecoder().decode(text)}`)

      title("A dump of the paused guest, and QEMU's own pmemsave of it")
      const pause = vm.pause()
      try {
        const file = join(lab.directory, 'demo.raw')
        const { sha256, elapsed } = await dumpMemory(vm, file, { sha256: true, onProgress: progress })
        console.log(`microvmi  ${sha256}  ${elapsed.toFixed(0)} ms with the hash`)
        const saved = join(lab.directory, 'saved.raw')
        const before = performance.now()
        await monitor(lab.ownQmp, 'pmemsave', { val: 0, size: MEMORY_MIB * 2 ** 20, filename: saved })
        const took = performance.now() - before
        const theirs = await hashOf(saved)
        console.log(`pmemsave  ${theirs}  ${took.toFixed(0)} ms without`)
        console.log(sha256 === theirs ? 'They are the same.' : 'They differ.')
        if (sha256 !== theirs) process.exitCode = 1
      } finally {
        pause.end()
      }
      console.log(`The guest is ${vm.runState()} again.`)
    } finally {
      await vm.close()
    }
  } finally {
    await lab.stop()
  }
}

async function hashOf(file: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(file, { highWaterMark: 2 ** 20 })) hash.update(chunk as Buffer)
  return hash.digest('hex')
}
