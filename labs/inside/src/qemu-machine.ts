import { writeFileSync } from 'node:fs'
import type { Emulator } from './emulator.ts'
import { CHANNELS, type Machine, type Prepared, type Run } from './machine.ts'
import { Port } from './port.ts'

/**
 * A machine of QEMU's. Its init unpacks the job from /dev/vda, and finds the channels as virtio serial ports.
 * @param own QEMU's arguments for all but the first serial port (the console), the job's disk and the ports
 */
export function qemuMachine(emulator: Emulator, own: readonly string[]): Machine {
  return { prepare: (run) => prepare(emulator, own, run) }
}

async function prepare(emulator: Emulator, own: readonly string[], run: Run): Promise<Prepared> {
  const { path, archive, channels, terminal } = run
  const ports = CHANNELS.map((name) => new Port(path(name), channels[name]))
  if (terminal) ports.push(new Port(path('terminal'), (bytes) => terminal.output.write(bytes), terminal.input))
  writeFileSync(path('job'), archive)
  await Promise.all(ports.map((port) => port.listening()))
  return {
    command: [
      emulator.command,
      ...emulator.leading,
      ...own,
      ...devices(path),
      ...(terminal ? terminalDevice(path) : []),
    ],
    environment: emulator.environment,
    ended: Promise.all(ports.map((port) => port.ended)),
    [Symbol.dispose]() {
      for (const port of ports) port[Symbol.dispose]()
    },
  }
}

function devices(path: (name: string) => string): string[] {
  return [
    ...['-serial', `file:${path('console')}`],
    ...['-drive', `if=virtio,format=raw,readonly=on,file=${path('job')}`],
    ...['-device', 'virtio-serial-pci'],
    ...CHANNELS.flatMap((port, index) => [
      ...['-chardev', `socket,id=${port},path=${path(port)}`],
      ...['-device', `virtserialport,chardev=${port},nr=${index + 1}`],
    ]),
  ]
}

function terminalDevice(path: (name: string) => string): string[] {
  return ['-chardev', `socket,id=terminal,path=${path('terminal')}`, '-device', 'virtconsole,chardev=terminal']
}
