/**
 * A debug console for tests: `node --import tsx console-peer.testing.ts MANNER` prints its port. It has the
 * manners that ours must bear with.
 */
import { createServer, type Socket } from 'node:net'
import { execute } from './console-commands.testing.ts'

const PROMPT = 'VBoxDbg> '
const EVENT = '\r\ndbgf event/0: CPU 0 has halted! (raw)\r\nrax=0000000080001234 rbx=ffffffff80009000\r\n'
const [manner = 'well'] = process.argv.slice(2)

const server = createServer((socket) => {
  socket.on('error', () => socket.destroy())
  if (manner === 'mute') return
  if (manner === 'another') return void socket.write(`220 mail.example ESMTP ${PROMPT}`)
  if (manner === 'gdb') return void socket.write('$T05thread:01;#07')
  if (manner === 'endless') return talk(socket)
  socket.write(`Welcome to the VirtualBox Debugger!\r\nCurrent VM is 80806000, CPU #0\r\n${PROMPT}`)
  let pending = ''
  let received = 0
  socket.on('data', (data) => {
    const text = data.toString('latin1')
    // VirtualBox never goes on from a command that ends at the last byte of its ring.
    if (/[;\n]/.test(text[2047 - (received % 2048)] ?? '')) return void socket.removeAllListeners('data')
    received += text.length
    pending += text
    for (let end = pending.indexOf('\n'); end >= 0; end = pending.indexOf('\n')) {
      answer(socket, pending.slice(0, end))
      pending = pending.slice(end + 1)
    }
  })
})
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address === 'object') console.log(address.port)
})

function talk(socket: Socket): void {
  while (!socket.destroyed && socket.write('x'.repeat(65_536)));
  socket.once('drain', () => talk(socket))
}

function answer(socket: Socket, line: string): void {
  if (manner === 'stalling') return
  // The first line alone.
  if (manner === 'late' && line.includes('microvmi-1-end')) return void setTimeout(() => say(socket, line), 1700)
  say(socket, line)
}

function say(socket: Socket, line: string): void {
  if (manner === 'hanging-up') return void socket.destroy()
  const commands = line.split(';').map((command) => command.trim())
  const said = commands.map((command) => execute(command, manner))
  if (manner === 'chatty') socket.write(`${EVENT}${PROMPT}`)
  for (const text of said) {
    const isMarker = text.startsWith('microvmi')
    socket.write(manner === 'chatty' && !isMarker ? `${text}${PROMPT}${EVENT}` : text)
  }
  socket.write(PROMPT)
}
