import { readFileSync } from 'node:fs'
import { beforeAll, describe, expect, test } from 'vitest'
import { QemuBackend } from './backend.ts'
import { checkPlatform } from './native.ts'
import { startMonitor } from './peer.testing.ts'
import { Qmp } from './qmp.ts'

const TREE = `FlatView #0
 AS "memory", root: system
 Root memory region: system
  0000000000000000-0000000000000fff (prio 0, ram): pc.ram KVM
`

describe.runIf(process.platform === 'linux')('opening', () => {
  beforeAll(() => checkPlatform())

  test.each(['query-name', 'query-kvm', 'human-monitor-command', 'query-cpus-fast', 'query-chardev'])(
    'a monitor that falls silent at %s is let go of',
    async (silent) => {
      using peer = await startMonitor(`(globalThis.left ??= 0, {
      'query-name': () => ({ name: 'test' }),
      'query-kvm': () => ({ enabled: false, present: true }),
      'human-monitor-command': (args) => args['command-line'] === 'info mtree -f' ? ${JSON.stringify(TREE)} : ${JSON.stringify(`Host virtual address for 0x0 (pc.ram) is 0x${mapped()}`)},
      'query-cpus-fast': () => [{}],
      'query-chardev': () => [],
      'query-left': () => globalThis.left,
      ['${silent}']: (args, write, socket) => { socket.on('close', () => { globalThis.left += 1 }) },
    })`)
      const qmp = new Qmp(peer.path, 200)
      expect(() => new QemuBackend(qmp, process.pid, 200, 'qmp')).toThrow(expect.objectContaining({ code: 'TIMEOUT' }))
      const other = new Qmp(peer.path, 2000)
      await expect.poll(() => other.execute('query-left')).toBe(1)
      other.close()
    },
  )
})

/** Where this process, in QEMU's place, has memory. */
function mapped(): string {
  return readFileSync('/proc/self/maps', 'latin1').split('-', 1)[0] ?? ''
}
