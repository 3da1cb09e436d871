import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Writable } from 'node:stream'
import { type CpioEntry, cpio, directoriesOf } from '@microvmi/lab-qemu'
import { machineImage } from './machine-image.ts'
import { outerQemu } from './outer-qemu.ts'

/** What the outer machine is to do. */
export interface Job {
  readonly command: readonly string[]
  /** Files to have there, by path below the root. */
  readonly files: ReadonlyMap<string, Uint8Array | string>
  readonly environment?: Readonly<Record<string, string>>
  readonly stdout: Writable
  readonly stderr: Writable
  /** Milliseconds from power-on to the command's end. */
  readonly timeout: number
}

/** Vendor, SVM and nested paging of AMD; without what Debian 12's KVM trips over in emulation, and without slow vectors. */
const PROCESSOR = 'EPYC,+svm,+npt,-smap,-monitor,-xsave,-avx,-avx2,-fma,-f16c'
const MEMORY = '2048'
const KERNEL_ARGUMENTS = 'console=ttyS0 mitigations=off nokaslr quiet loglevel=4 tsc=reliable panic=-1'
const PORTS = ['stdout', 'stderr', 'status'] as const

/** Boots an outer machine, runs a command in it, and returns the command's exit status. The machine is gone then. */
export async function runInMachine(job: Job): Promise<number> {
  const [{ command, leading }, { kernel, initrd }] = await Promise.all([outerQemu(), machineImage()])
  const directory = mkdtempSync(join(tmpdir(), 'microvmi-kvm-'))
  const path = (name: string) => join(directory, name)
  const servers: Server[] = []
  let child: ChildProcess | undefined
  try {
    writeFileSync(path('job'), archiveOf(job))
    const status: Buffer[] = []
    const ended = PORTS.map((port) => {
      const server = createServer()
      servers.push(server)
      server.listen(path(port))
      return once(server, 'connection').then(async ([socket]) => {
        for await (const bytes of socket) {
          if (port === 'status') status.push(bytes)
          else job[port].write(bytes)
          // The machine writes the status after all else.
          if (port === 'status' && Buffer.concat(status).includes('\n')) child?.kill('SIGKILL')
        }
      })
    })
    await Promise.all(servers.map((server) => once(server, 'listening')))
    const log = openSync(path('log'), 'w')
    // The kernel ends the emulator when its parent has ended: no path leaves one behind.
    child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', command, ...leading, ...argumentsOf(kernel, initrd, path)], {
      stdio: ['ignore', log, log],
    })
    closeSync(log)
    const exit = once(child, 'exit')
    const timer = setTimeout(() => child?.kill('SIGKILL'), job.timeout)
    await exit
    clearTimeout(timer)
    const text = Buffer.concat(status).toString()
    if (!/^\d+\n/.test(text)) {
      const told = ['log', 'console'].map((name) => readFileSync(path(name), 'latin1').slice(-4000))
      throw new Error(`the outer machine told no exit status within ${job.timeout} ms.\n${told.join('\n')}`)
    }
    await Promise.all(ended)
    return Number(text)
  } finally {
    child?.kill('SIGKILL')
    for (const server of servers) server.close()
    rmSync(directory, { recursive: true, force: true })
  }
}

function archiveOf({ command, files, environment = {} }: Job): Buffer {
  const script = [
    ...Object.entries(environment).map(([name, value]) => `export ${name}=${quoted(value)}`),
    'cd /job',
    `exec ${command.map(quoted).join(' ')}`,
  ].join('\n')
  const entries: CpioEntry[] = [
    ...directoriesOf(['job/run', ...files.keys()]),
    { path: 'job/run', type: 'file', data: script },
    ...[...files].map(([path, data]): CpioEntry => ({ path, type: 'executable', data })),
  ]
  const archive = cpio(entries)
  // A disk has whole sectors.
  return Buffer.concat([archive, Buffer.alloc(-archive.length & 511)])
}

/** A word for a POSIX shell. */
export function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`
}

function argumentsOf(kernel: string, initrd: string, path: (name: string) => string): string[] {
  return [
    ...['-machine', 'q35', '-accel', 'tcg,thread=multi', '-cpu', PROCESSOR, '-smp', '1', '-m', MEMORY],
    ...['-display', 'none', '-nodefaults', '-nic', 'none', '-no-user-config', '-no-reboot'],
    ...['-kernel', kernel, '-initrd', initrd, '-append', KERNEL_ARGUMENTS],
    ...['-serial', `file:${path('console')}`],
    ...['-drive', `if=virtio,format=raw,readonly=on,file=${path('job')}`],
    ...['-device', 'virtio-serial-pci'],
    ...PORTS.flatMap((port, index) => [
      ...['-chardev', `socket,id=${port},path=${path(port)}`],
      ...['-device', `virtserialport,chardev=${port},nr=${index + 1}`],
    ]),
  ]
}
