/**
 * A session in a process of its own: `node --import tsx client.testing.ts NAME WHAT`. Says "begun" when it is at work,
 * and "done" at its end.
 */
import { closeSync, openSync } from 'node:fs'
import { MicrovmiError, open } from '@microvmi/core'
import { fdp } from './driver.ts'
import { LockFile } from './lock-file.ts'
import { GUEST, patternAt } from './server.testing.ts'

const [name = '', what] = process.argv.slice(2)
const vm = await open(fdp, { vm: name })
setImmediate(() => console.log('begun'))

switch (what) {
  case 'read when asked':
    process.once('SIGUSR1', () => vm.memory.read(GUEST.known, new Uint8Array(4096)))
    await forever()
    break
  case 'hammer':
    for (let round = 0; round < 3000; round++) hammer(round)
    break
  case 'hammer for ever':
    try {
      for (let round = 0; ; round++) {
        hammer(round)
        if (round % 100 === 0) await new Promise(setImmediate)
      }
    } catch (error) {
      if (!(error instanceof MicrovmiError && error.code === 'VM_GONE')) throw error
    }
    break
  case 'seize': {
    const fd = openSync(`/dev/shm/${name}`, 'r')
    new LockFile('/dev/shm', name, fd).take(1000)
    closeSync(fd)
    await forever()
    break
  }
  case 'pause':
    vm.pause()
    await forever()
    break
  case 'stop and go':
    for (let round = 0; round < 150; round++) {
      vm.pause().end()
      if (round % 10 === 0) vm.readRegisters(1)
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    break
  case 'listen':
    for await (const event of vm.intercept({ kind: 'breakpoint', address: GUEST.codeVirtual })) {
      event.hold()
      console.log('hit')
      await forever()
    }
    break
}
console.log('done')
await vm.close()

/** Reads that tell whose reply they got: by length, and by what is there. */
function hammer(round: number): void {
  const address = GUEST.known + ((round * 37) % 8192)
  const bytes = new Uint8Array(1 + (round % 300))
  vm.memory.read(address, bytes)
  if (Buffer.compare(bytes, patternAt(address, bytes.length)) !== 0)
    throw new Error(`another's reply in round ${round}`)
  if (vm.readMsr(0, 0x277) !== GUEST.pat) throw new Error(`another's MSR in round ${round}`)
}

function forever(): Promise<never> {
  return new Promise(() => setInterval(() => {}, 1000))
}
