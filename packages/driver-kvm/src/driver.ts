import { existsSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { badArgument, type Driver, defineDriver, MicrovmiError, register, type VmListing } from '@microvmi/core/driver'
import { POSSIBLE, PROMISES, QemuBackend } from './backend.ts'
import { type QemuProcess, qemuProcesses } from './discovery.ts'
import type { MemoryWay } from './guest-ram.ts'
import { checkPlatform } from './native.ts'
import { Qmp } from './qmp.ts'

/** What can be set when a VM is opened. */
export interface KvmOptions {
  /** The QMP socket to use, where QEMU has several, or one that its command line does not show. */
  readonly qmp?: string
  /** The only way to memory to use: `shared`, `process_vm`, `proc` or `qmp`. Default: the fastest that works. */
  readonly memory?: MemoryWay
}

const WAYS: ReadonlySet<string> = new Set<MemoryWay>(['shared', 'process_vm', 'proc', 'qmp'])

/**
 * Stock QEMU, no patch. `vm` is a VM's name, QEMU's pid, or the path of a QMP socket.
 *
 * @example
 * ```ts
 * import { open } from '@microvmi/core'
 * import { kvm } from '@microvmi/driver-kvm'
 *
 * const vm = await open(kvm, { vm: 'debian' })
 * try {
 *   console.log(vm.info.details, vm.readRegisters(0).rip)
 * } finally {
 *   await vm.close()
 * }
 * ```
 */
export const kvm: Driver<KvmOptions, (typeof PROMISES)[number], (typeof POSSIBLE)[number]> = register(
  defineDriver<KvmOptions>()({
    scheme: 'kvm',
    package: '@microvmi/driver-kvm 0.1.0',
    contract: { major: 0, minor: 1 },
    promises: PROMISES,
    possible: POSSIBLE,
    options: { qmp: 'string', memory: 'string' },

    async probe() {
      try {
        checkPlatform()
        return { usable: true, details: { 'kernel.yama.ptrace_scope': ptraceScope() } }
      } catch (error) {
        if (!(error instanceof MicrovmiError)) throw error
        return { usable: false, reason: error.message }
      }
    },

    async list() {
      checkPlatform()
      return qemuProcesses().map(listingOf)
    },

    async open({ vm, options, timeout }) {
      checkPlatform()
      const { memory } = options
      if (memory !== undefined && !WAYS.has(memory)) {
        throw badArgument(`memory is one of ${[...WAYS].join(', ')}, not '${memory}'`)
      }
      const { qmp, pid } = connect(vm, options.qmp, timeout)
      const backend = new QemuBackend(qmp, pid, timeout, memory)
      if ([backend.name, backend.id, qmp.path].includes(vm) || options.qmp === undefined) return backend
      await backend.close()
      throw new MicrovmiError('VM_NOT_FOUND', `at ${options.qmp} is '${backend.name}' (${backend.id}), not '${vm}'`)
    },
  }),
)

/** A QMP connection to the VM of that name, pid or socket. */
function connect(vm: string, socket: string | undefined, timeout: number): { qmp: Qmp; pid: number } {
  if (socket !== undefined) return connectTo([socket], timeout)
  if (vm.startsWith('/') && existsSync(vm)) return connectTo([vm], timeout)
  const processes = qemuProcesses()
  const named = processes.filter(({ name, uuid }) => name === vm || uuid === vm)
  const [first, second] = named.length > 0 ? named : processes.filter(({ pid }) => String(pid) === vm)
  if (first && second) {
    throw new MicrovmiError(
      'VM_AMBIGUOUS',
      `several VMs are called '${vm}': open one by its pid (${named.map(({ pid }) => pid).join(', ')})`,
    )
  }
  if (first) {
    const hindrance = hindranceOf(first)
    if (hindrance) throw new MicrovmiError('BUSY', `${vm}: ${hindrance}`)
    return connectTo(first.qmp, timeout)
  }
  const names = processes.map(({ name, pid }) => `${name} (${pid})`).join(', ')
  throw new MicrovmiError(
    'VM_NOT_FOUND',
    `no QEMU runs a VM '${vm}'. Running: ${names || 'none that this user can see'}`,
  )
}

/** The first of the sockets that is free. */
function connectTo(sockets: readonly string[], timeout: number): { qmp: Qmp; pid: number } {
  let failure: unknown
  for (const path of sockets) {
    try {
      const qmp = new Qmp(path, timeout)
      const { pid } = qmp
      if (pid !== undefined && pid > 0) return { qmp, pid }
      qmp.close()
      throw new MicrovmiError('DENIED', `the process behind ${path} cannot be told: it is in another PID namespace`)
    } catch (error) {
      if (!(error instanceof MicrovmiError)) throw error
      failure ??= error
    }
  }
  throw failure
}

function listingOf(process: QemuProcess): VmListing {
  const { pid, name } = process
  const hindrance = hindranceOf(process)
  return { vm: String(pid), name, id: String(pid), state: 'unknown', ...(hindrance ? { hindrance } : {}) }
}

/** Why no QMP socket of a VM can be used, if so. */
function hindranceOf({ qmp, hasOtherQmp }: QemuProcess): string | undefined {
  if (qmp.length === 0) {
    return hasOtherQmp
      ? 'its QMP is at a TCP port or an inherited descriptor (libvirt does that): give QEMU a socket of its own for ' +
          'microvmi, with -qmp unix:PATH,server=on,wait=off (in libvirt: <qemu:commandline>)'
      : 'it has no QMP socket: start QEMU with -qmp unix:PATH,server=on,wait=off'
  }
  if (qmp.every((path) => basename(path) === 'monitor.sock' && path.includes('/libvirt/'))) {
    return "its only QMP socket is libvirt's own: add one with <qemu:commandline> (-qmp unix:PATH,server=on,wait=off)"
  }
  return undefined
}

function ptraceScope(): string {
  try {
    return readFileSync('/proc/sys/kernel/yama/ptrace_scope', 'utf8').trim()
  } catch (error) {
    // Kernels without Yama have no such restriction.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'none'
    throw error
  }
}
