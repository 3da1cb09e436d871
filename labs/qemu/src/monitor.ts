import { connect } from 'node:net'

/** A value of QMP's. */
export type QmpValue = unknown

/** One line from QEMU (docs/interop/qmp-spec: greeting, answer, error, event). */
interface Message {
  readonly QMP?: QmpValue
  readonly id?: QmpValue
  readonly return?: QmpValue
  readonly error?: { readonly desc: string }
}

const DEADLINE = 60_000

/**
 * Runs one command through a QMP socket of its own, as QEMU's own tools would: for tests to compare with. `human`
 * commands (`info registers`) are run by `human-monitor-command`. Connection, greeting and answer have one deadline, in
 * milliseconds.
 */
export function monitor(
  socket: string,
  execute: string,
  args: Record<string, QmpValue> = {},
  deadline = DEADLINE,
): Promise<QmpValue> {
  const connection = connect(socket)
  let rest = ''
  let isSilent = true
  return new Promise<QmpValue>((resolve, reject) => {
    const timer = setTimeout(() => {
      // A monitor serves one client at a time: the next one is connected, and hears nothing.
      const hint = isSilent ? ': it says nothing; is there another client?' : ''
      reject(new Error(`no answer to ${execute} on ${socket} within ${deadline} ms${hint}`))
    }, deadline)
    connection.once('error', reject)
    connection.once('close', () => {
      clearTimeout(timer)
      reject(new Error(`${socket} was closed without an answer to ${execute}`))
    })
    const take = ({ QMP, id, return: value, error }: Message): void => {
      if (QMP !== undefined) {
        const command = JSON.stringify({ execute, arguments: args, id: 'lab' })
        connection.write(`{"execute":"qmp_capabilities"}\n${command}\n`)
      }
      if (id !== 'lab') return
      if (error) reject(new Error(`${execute}: ${error.desc}`))
      else resolve(value)
    }
    connection.setEncoding('utf8')
    connection.on('data', (text: string) => {
      isSilent = false
      const lines = `${rest}${text}`.split('\n')
      rest = lines.pop() ?? ''
      try {
        for (const line of lines) take(JSON.parse(line) as Message)
      } catch (error) {
        reject(error)
      }
    })
  }).finally(() => connection.destroy())
}
