import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Writable } from 'node:stream'
import { type CpioEntry, cpio, createRunDirectory, directoriesOf, noteOwner } from '@microvmi/lab-qemu'
import { machineImage } from './machine-image.ts'
import { outerQemu } from './outer-qemu.ts'
import { lines, Port } from './port.ts'

/** What the outer machine is to do. */
export interface Job {
  readonly command: readonly string[]
  /** Files to have there, by path below the root. */
  readonly files: ReadonlyMap<string, Uint8Array | string>
  readonly environment?: Readonly<Record<string, string>>
  readonly stdout: Writable
  readonly stderr: Writable
  /** Takes each line that the command writes to the port `RESULTS`. */
  readonly result?: (line: string) => void
  /** Milliseconds from power-on to the command's end. */
  readonly timeout: number
  /** Turns the machine off. */
  readonly signal?: AbortSignal
}

/** Vendor, SVM and nested paging of AMD; without what Debian 12's KVM trips over in emulation, and without slow vectors. */
const PROCESSOR = 'EPYC,+svm,+npt,-smap,-monitor,-xsave,-avx,-avx2,-fma,-f16c'
const MEMORY = '2048'
const KERNEL_ARGUMENTS = 'console=ttyS0 mitigations=off nokaslr quiet loglevel=4 tsc=reliable panic=-1'

/** Its serial ports: /dev/vport0p1 and on. What it writes to one is here before what it then writes to the next. */
const PORTS = ['stdout', 'stderr', 'results', 'status'] as const

/** Where a command finds the port of the results. */
export const RESULTS = `/dev/vport0p${PORTS.indexOf('results') + 1}`

/** Boots an outer machine, runs a command in it, and returns the command's exit status. The machine is gone then. */
export async function runInMachine(job: Job): Promise<number> {
  const [{ command, leading }, { kernel, initrd }] = await Promise.all([outerQemu(), machineImage()])
  const directory = createRunDirectory()
  const path = (name: string) => join(directory, name)
  const off = new AbortController()
  let status: number | undefined
  const takers = {
    stdout: (bytes: Buffer) => job.stdout.write(bytes),
    stderr: (bytes: Buffer) => job.stderr.write(bytes),
    results: lines(job.result ?? (() => undefined)),
    status: lines((line) => {
      status = Number(line)
      off.abort()
    }),
  }
  const ports = PORTS.map((name) => new Port(path(name), takers[name]))
  let child: ChildProcess | undefined
  try {
    writeFileSync(path('job'), archiveOf(job))
    await Promise.all(ports.map((port) => port.listening()))
    const log = openSync(path('log'), 'w', 0o600)
    // The kernel ends the emulator when its parent has ended: no path leaves one behind.
    const guard = ['--pdeathsig', 'KILL', '--', command, ...leading]
    child = spawn('setpriv', [...guard, ...argumentsOf(kernel, initrd, path)], { stdio: ['ignore', log, log] })
    closeSync(log)
    if (child.pid !== undefined) noteOwner(directory, child.pid)
    const limit = AbortSignal.any([off.signal, AbortSignal.timeout(job.timeout), ...(job.signal ? [job.signal] : [])])
    await ending(child, limit)
    if (status === undefined) throw new Error(silence(job, path))
    await Promise.all(ports.map((port) => port.ended))
    return status
  } finally {
    if (child !== undefined) kill(child)
    for (const port of ports) port[Symbol.dispose]()
    rmSync(directory, { recursive: true, force: true })
  }
}

/** Waits until a process has ended, and kills it when the signal comes. */
async function ending(child: ChildProcess, limit: AbortSignal): Promise<void> {
  const end = () => kill(child)
  if (limit.aborted) end()
  limit.addEventListener('abort', end, { once: true })
  try {
    await once(child, 'exit')
  } finally {
    limit.removeEventListener('abort', end)
  }
}

/** Of a program that could not be started there is no process: the kernel would take 0 for our own group. */
function kill(child: ChildProcess): void {
  if (child.pid !== undefined) child.kill('SIGKILL')
}

/** Why there is no exit status. */
function silence({ timeout, signal }: Job, path: (name: string) => string): string {
  if (signal?.aborted) return 'the outer machine was turned off before its command had ended'
  const told = ['log', 'console'].map((name) => (existsSync(path(name)) ? readFileSync(path(name), 'latin1') : ''))
  return `the outer machine told no exit status within ${timeout / 1000} s. What it said last:\n${told.join('\n').slice(-4000)}`
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
