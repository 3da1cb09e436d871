import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * A peer on a unix socket, in a process of its own: a synchronous client would wait for ever for one on its own thread.
 * `script` is the body of a function of `socket` (node:net) and of `lines(callback)`.
 */
export async function startPeer(script: string) {
  const directory = mkdtempSync(join(tmpdir(), 'peer-'))
  const path = join(directory, 'socket')
  const program = `
    const { createServer } = require('node:net')
    createServer((socket) => {
      socket.on('error', () => {})
      const lines = (callback) => {
        let text = ''
        socket.on('data', (data) => {
          text += data.toString('latin1')
          for (let end = text.indexOf('\\n'); end >= 0; end = text.indexOf('\\n')) {
            const line = text.slice(0, end)
            text = text.slice(end + 1)
            callback(line)
          }
        })
      }
      ${script}
    }).listen(${JSON.stringify(path)}, () => console.log('listening'))
  `
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  return {
    path,
    [Symbol.dispose]() {
      child.kill('SIGKILL')
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\\n'

/** A peer that speaks QMP: `answers` is the source of an object of functions by command, of the command's arguments. */
export function startMonitor(answers: string) {
  return startPeer(`
    const answers = ${answers}
    socket.write('${GREETING}')
    lines((line) => {
      const { execute, arguments: args, id } = JSON.parse(line)
      const write = (message) => socket.write(JSON.stringify(message) + '\\n')
      if (execute === 'qmp_capabilities') return write({ return: {}, id })
      const answer = answers[execute]
      if (!answer) return write({ error: { class: 'CommandNotFound', desc: 'The command ' + execute + ' has not been found' }, id })
      const result = answer(args ?? {}, write, socket, id)
      if (result !== undefined) write({ return: result, id })
    })
  `)
}
