import { once } from 'node:events'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'

/** A value of QMP's. */
export type QmpValue = unknown

/**
 * Runs one command through a QMP socket of its own, as QEMU's own tools would: for tests to compare with. `human`
 * commands (`info registers`) are run by `human-monitor-command`.
 */
export async function monitor(socket: string, execute: string, args: Record<string, QmpValue> = {}): Promise<QmpValue> {
  const connection = connect(socket)
  connection.setTimeout(60_000, () =>
    connection.destroy(new Error(`no answer to ${execute} on ${socket} within a minute`)),
  )
  try {
    await once(connection, 'connect')
    const lines = createInterface({ input: connection })[Symbol.asyncIterator]()
    connection.write(`{"execute":"qmp_capabilities"}\n${JSON.stringify({ execute, arguments: args, id: 'lab' })}\n`)
    for (let line = await lines.next(); !line.done; line = await lines.next()) {
      const message = JSON.parse(line.value) as { id?: string; return?: QmpValue; error?: { desc: string } }
      if (message.id !== 'lab') continue
      if (message.error) throw new Error(`${execute}: ${message.error.desc}`)
      return message.return
    }
    throw new Error(`the monitor at ${socket} was closed`)
  } finally {
    connection.destroy()
  }
}
