import { beforeAll, describe, expect, test } from 'vitest'
import { checkPlatform } from './native.ts'
import { startMonitor, startPeer } from './peer.testing.ts'
import { Qmp } from './qmp.ts'

const TIMEOUT = 300
const failing = (code: string) => expect.objectContaining({ name: 'MicrovmiError', code })

describe.runIf(process.platform === 'linux')('QMP', () => {
  beforeAll(() => checkPlatform())

  test('greets, answers, refuses', async () => {
    using peer = await startMonitor(`{ 'query-status': () => ({ running: true }), 'query-cpus-fast': () => [1, 2] }`)
    const qmp = new Qmp(peer.path, TIMEOUT)
    expect(qmp.version).toBe('QEMU 7.2.0')
    expect(qmp.query('query-status')).toEqual({ running: true })
    expect(() => qmp.query('query-cpus-fast')).toThrow(failing('PROTOCOL'))
    expect(() => qmp.execute('frobnicate')).toThrow(failing('HYPERVISOR'))
    expect(() => qmp.execute('frobnicate')).toThrow(/frobnicate has not been found/)
    expect(qmp.pid).toBeGreaterThan(0)
    expect(qmp.hasEnded).toBe(false)
    qmp.close()
  })

  test('events and answers to nobody, before and after an answer, disturb no command, and are told later', async () => {
    using peer = await startMonitor(`{
      stop: (args, write, socket, id) => {
        write({ event: 'STOP', timestamp: {} })
        write({ return: 'of someone else', id: 'x' })
        write({ return: {}, id })
        write({ event: 'RESET', data: { guest: true } })
      },
    }`)
    const qmp = new Qmp(peer.path, TIMEOUT)
    const told = new Promise<void>((resolve) => qmp.watch(resolve))
    qmp.execute('stop')
    await told
    const events = []
    while (events.length < 2) {
      events.push(...qmp.takeEvents())
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    expect(events).toEqual([
      { event: 'STOP', data: {}, during: 'stop' },
      { event: 'RESET', data: { guest: true }, during: undefined },
    ])
    qmp.close()
  })

  test.each([
    ['says nothing', '', 'TIMEOUT'],
    ['hangs up', 'socket.end()', 'VM_GONE'],
    ['sends half a line', `socket.write('{"QMP": {"version"')`, 'TIMEOUT'],
    ['sends garbage', `socket.write('SSH-2.0-OpenSSH_9.2\\n')`, 'PROTOCOL'],
    ['sends no object', `socket.write('[1, 2]\\n')`, 'PROTOCOL'],
    ['greets without a version', `socket.write('{"QMP": {}}\\n')`, 'PROTOCOL'],
    ['sends bytes that are no text', `socket.write(Buffer.from([0xff, 0xfe, 0, 10]))`, 'PROTOCOL'],
  ])('a peer that %s', async (_, script, code) => {
    using peer = await startPeer(script)
    const started = performance.now()
    expect(() => new Qmp(peer.path, TIMEOUT)).toThrow(failing(code))
    expect(performance.now() - started).toBeLessThan(TIMEOUT * 10)
  })

  test('a peer that sends 100 MiB without a newline is stopped early', async () => {
    using peer = await startPeer(`
      const chunk = Buffer.alloc(2 ** 20, 'x')
      let left = 100
      const more = () => { while (left-- > 0 && socket.write(chunk)); }
      socket.on('drain', more)
      more()
    `)
    const before = process.memoryUsage().rss
    expect(() => new Qmp(peer.path, 20_000)).toThrow(failing('PROTOCOL'))
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * 2 ** 20)
  })

  test('a peer that stops answering, or goes away, in the middle', async () => {
    using peer = await startMonitor(`{ hang: () => undefined, leave: (args, write, socket) => { socket.destroy() } }`)
    const qmp = new Qmp(peer.path, TIMEOUT)
    expect(() => qmp.execute('hang')).toThrow(failing('TIMEOUT'))
    expect(() => qmp.execute('leave')).toThrow(failing('VM_GONE'))
    expect(() => qmp.execute('leave')).toThrow(failing('VM_GONE'))
    expect(qmp.hasEnded).toBe(true)
    qmp.close()
    expect(() => qmp.execute('leave')).toThrow(failing('VM_GONE'))
  })

  test('no socket, no such path, a path that is too long', () => {
    expect(() => new Qmp('/nowhere/at/all', TIMEOUT)).toThrow(failing('VM_NOT_FOUND'))
    expect(() => new Qmp('/etc/hostname', TIMEOUT)).toThrow(failing('VM_NOT_FOUND'))
    expect(() => new Qmp(`/${'x'.repeat(120)}`, TIMEOUT)).toThrow(failing('BAD_ARGUMENT'))
  })
})
