import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { lines, Port } from './port.ts'

test('lines are cut wherever the bytes are', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), fc.array(fc.nat(100)), (text, cuts) => {
      const taken: string[] = []
      const take = lines((line) => taken.push(line))
      let rest = Buffer.from(text)
      for (const cut of cuts) {
        take(rest.subarray(0, cut))
        rest = rest.subarray(cut)
      }
      take(rest)
      // A byte order mark is no text.
      expect(taken).toEqual(
        text
          .replace(/^\ufeff/, '')
          .split('\n')
          .slice(0, -1),
      )
    }),
  )
})

test('a port hands on what is written to it, and ends with its writer', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'microvmi-port-'))
  try {
    const taken: Buffer[] = []
    using port = new Port(join(directory, 'port'), (bytes) => taken.push(bytes))
    await port.listening()
    const socket = connect(join(directory, 'port'))
    await once(socket, 'connect')
    socket.end('what is written')
    await port.ended
    expect(Buffer.concat(taken).toString()).toBe('what is written')
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('what the machine is to read comes when it is there to read it, and Ctrl-D at the end', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'microvmi-port-'))
  try {
    using port = new Port(join(directory, 'port'), () => undefined, Readable.from([Buffer.from('xl list\n')]))
    await port.listening()
    const socket = connect(join(directory, 'port'))
    let read = ''
    while (!read.endsWith('\x04')) read += (await once(socket, 'data')).join('')
    expect(read).toBe('xl list\n\x04')
    socket.end()
    await port.ended
  } finally {
    rmSync(directory, { recursive: true })
  }
})
