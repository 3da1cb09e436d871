/**
 * A client in a process of its own: `node --import tsx client.testing.ts NAME WHAT`. Says "begun" when it is at
 * work, and "done" at its end.
 */
import { open } from '@microvmi/core'
import { fdp } from './driver.ts'
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
    hammer()
    break
  case 'pause':
    vm.pause()
    await forever()
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
function hammer(): void {
  for (let round = 0; round < 3000; round++) {
    const address = GUEST.known + ((round * 37) % 8192)
    const bytes = new Uint8Array(1 + (round % 300))
    vm.memory.read(address, bytes)
    if (Buffer.compare(bytes, patternAt(address, bytes.length)) !== 0)
      throw new Error(`another's reply in round ${round}`)
    if (vm.readMsr(0, 0x277) !== 0x0007_0406_0007_0406n) throw new Error(`another's MSR in round ${round}`)
  }
}

function forever(): Promise<never> {
  return new Promise(() => setInterval(() => {}, 1000))
}
