import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { monitor } from './monitor.ts'

const GREETING = '{"QMP": {"version": {}, "capabilities": ["oob"]}}\r\n'

// A peer that says what each test gives it.
describe.skipIf(process.platform === 'win32')('on a Unix socket', () => {
  let directory: string
  let path: string
  let server: Server | undefined
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'microvmi-test-'))
    path = join(directory, 'qmp')
  })
  afterEach(async () => {
    await new Promise((resolve) => (server ? server.close(resolve) : resolve(undefined)))
    server = undefined
    rmSync(directory, { recursive: true })
  })

  const serve = (answer: (connection: Socket, sent: string) => void, greeting = GREETING) =>
    new Promise<void>((resolve) => {
      server = createServer((connection) => {
        connection.on('error', () => connection.destroy())
        connection.write(greeting)
        let sent = ''
        connection.on('data', (text) => {
          sent += text
          if (sent.includes('"lab"')) answer(connection, sent)
        })
      }).listen(path, resolve)
    })

  test('an answer among events and other answers, however it is cut into pieces', async () => {
    const value = { text: 'ünusual', list: [1, 2] }
    const lines = [{ return: {} }, { event: 'RESUME' }, { return: 1, id: 'other' }, { return: value, id: 'lab' }]
    const bytes = Buffer.from(lines.map((line) => `${JSON.stringify(line)}\r\n`).join(''))
    let cuts: number[] = []
    await serve((connection) => {
      const ends = [...cuts.sort((a, b) => a - b), bytes.length]
      for (const [index, end] of ends.entries()) connection.write(bytes.subarray(ends[index - 1] ?? 0, end))
    })
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(bytes.length), { maxLength: 6 }), async (places) => {
        cuts = places
        expect(await monitor(path, 'query-name')).toEqual(value)
      }),
      { numRuns: 50 },
    )
  })

  test('the command follows the capabilities', async () => {
    const all: string[] = []
    await serve((connection, sent) => {
      all.push(sent)
      connection.write('{"return": null, "id": "lab"}\n')
    })
    expect(await monitor(path, 'pmemsave', { size: 1 })).toBeNull()
    expect(
      all
        .join('')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as unknown),
    ).toEqual([{ execute: 'qmp_capabilities' }, { execute: 'pmemsave', arguments: { size: 1 }, id: 'lab' }])
  })

  test("QEMU's own complaint", async () => {
    await serve((connection) =>
      connection.write('{"id": "lab", "error": {"class": "GenericError", "desc": "no such"}}\n'),
    )
    await expect(monitor(path, 'x')).rejects.toThrow('x: no such')
  })

  test('one deadline for all of it, which events do not put off', async () => {
    let timer: NodeJS.Timeout | undefined
    await serve((connection) => {
      timer = setInterval(() => connection.write('{"event": "RTC_CHANGE"}\n'), 5)
    })
    await expect(monitor(path, 'x', {}, 100)).rejects.toThrow(`no answer to x on ${path} within 100 ms`)
    clearInterval(timer)
  })

  test('a monitor that is held by another client is told', async () => {
    await serve(() => undefined, '')
    await expect(monitor(path, 'x', {}, 50)).rejects.toThrow('is there another client?')
  })

  test('a monitor that goes away, talks nonsense, or is not there', async () => {
    await expect(monitor(path, 'x')).rejects.toThrow('ENOENT')
    await serve((connection) => connection.destroy())
    await expect(monitor(path, 'x')).rejects.toThrow('was closed without an answer to x')
    await new Promise((resolve) => server?.close(resolve))
    await serve((connection) => connection.write('nonsense\n'))
    await expect(monitor(path, 'x')).rejects.toThrow(SyntaxError)
  })
})
