import { readFileSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import { badArgument, MicrovmiError, type OpenRequest, type VmListing } from '@microvmi/core/driver'
import { KvmiBackend } from './backend.ts'
import type { Caller } from './caller.ts'
import { idOf, nameOf } from './handshake.ts'
import { Listener } from './listener.ts'
import type { Address } from './listening-socket.ts'
import { ENVIRONMENT, type KvmiOptions } from './options.ts'
import { parseMode, parseOwner } from './owner.ts'

/** QEMU's usual `reconnect` is 10 seconds (KVM-VMI's examples): one more and it has been there. */
const DEFAULT_WAIT = 12_000
/** A listing is there so many milliseconds before its deadline. */
const MARGIN = 100

/** The VMs that have dialled in, or do until shortly before `end` (of `performance.now()`). */
export async function listVms(end: number): Promise<VmListing[]> {
  const listeners = allListeners()
  try {
    if (listeners.length > 0) await delay(Math.max(0, end - MARGIN - performance.now()))
    const listings = listeners.flatMap((listener) => [
      ...listener.callers.flatMap((caller) => listing(caller)),
      ...listener.taken.flatMap((caller) => listing(caller, 'this process has it open')),
    ])
    return unambiguous(listings)
  } finally {
    for (const listener of listeners) listener.leave(true)
  }
}

/** Waits for a VM to dial in, and opens it. */
export async function openVm(request: OpenRequest<KvmiOptions>): Promise<KvmiBackend> {
  const { wait = DEFAULT_WAIT } = request.options
  if (!(wait >= 0)) throw badArgument(`wait is a number of milliseconds, not ${wait}`)
  const listeners = listenersFor(request.options)
  try {
    return await awaitVm(listeners, request, performance.now() + wait)
  } finally {
    for (const listener of listeners) listener.leave()
  }
}

/** Waits for the VM to dial in at one of these sockets. */
async function awaitVm(
  listeners: readonly Listener[],
  { vm, timeout, signal }: OpenRequest<KvmiOptions>,
  end: number,
): Promise<KvmiBackend> {
  for (;;) {
    const found = listeners.flatMap((listener) =>
      listener.callers.filter(named(vm)).map((caller) => ({ listener, caller })),
    )
    const [first, second] = found
    if (first && second)
      throw ambiguous(
        vm,
        found.map(({ caller }) => caller),
      )
    if (first) return connect(first.listener, first.caller, timeout)
    if (listeners.some(({ taken }) => taken.some(named(vm)))) {
      throw new MicrovmiError('BUSY', `'${cut(vm)}' is open in this process: KVMi has one introspector for each VM`)
    }
    const left = end - performance.now()
    if (left <= 0) throw notFound(vm, listeners)
    const changes = listeners.map((listener) => listener.change(left))
    const onAbort = () => {
      for (const { cancel } of changes) cancel()
    }
    signal?.addEventListener('abort', onAbort, { once: true })
    await Promise.race(changes.map(({ done }) => done))
    signal?.removeEventListener('abort', onAbort)
    onAbort()
    if (signal?.aborted) throw new MicrovmiError('ABORTED', `opening kvmi:${vm} was aborted`, { cause: signal.reason })
  }
}

function connect(listener: Listener, caller: Caller, timeout: number): KvmiBackend {
  const { failure, hello } = caller
  if (failure) throw failure
  if (!hello) throw new MicrovmiError('PROTOCOL', 'a VM without a handshake')
  listener.take(caller)
  return new KvmiBackend(caller.connect(timeout), {
    hello,
    socket: listener.name,
    onClose: () => listener.give(caller),
  })
}

/** Those at the sockets that were asked for; without any, those that listen already. Listens for no other reason. */
function listenersFor(options: KvmiOptions): Listener[] {
  const { socket, vsock } = options
  const mode = parseMode(options.mode ?? '0600')
  const owner = options.owner === undefined ? undefined : parseOwner(options.owner)
  const secret = secretOf(options)
  if (socket !== undefined && vsock !== undefined) throw badArgument('give socket or vsock, not both')
  if (socket !== undefined) return [Listener.use(unixAddress(socket, mode, owner), secret)]
  if (vsock !== undefined) return [Listener.use(vsockAddress(vsock), secret)]
  const listeners = allListeners(secret)
  if (listeners.length > 0) return listeners
  throw badArgument(
    `KVMi's QEMU dials in, so say where to listen: socket (or vsock), or ${ENVIRONMENT} in the environment`,
  )
}

/** Those that the environment names, and those that listen already. */
function allListeners(secret?: Uint8Array): Listener[] {
  const named = fromEnvironment(secret)
  return [...named, ...Listener.useOthers(named)]
}

function fromEnvironment(secret?: Uint8Array): Listener[] {
  const text = process.env[ENVIRONMENT] ?? ''
  const listeners: Listener[] = []
  try {
    for (const one of text.match(/vsock:\d+|[^:]+/g) ?? []) {
      const port = /^vsock:(\d+)$/.exec(one)?.[1]
      const address = port === undefined ? unixAddress(one, 0o600, undefined) : vsockAddress(Number(port))
      listeners.push(Listener.use(address, secret))
    }
    return listeners
  } catch (error) {
    for (const listener of listeners) listener.leave()
    throw error
  }
}

function unixAddress(path: string, mode: number, owner: ReturnType<typeof parseOwner> | undefined): Address {
  if (!isAbsolute(path) || path.includes('\0')) throw badArgument(`socket is an absolute path, not '${path}'`)
  return { path, mode, owner }
}

function vsockAddress(port: number): Address {
  if (Number.isInteger(port) && port >= 0 && port < 2 ** 32) return { port }
  throw badArgument(`vsock is a port of 32 bits, not ${port}`)
}

function secretOf({ secret, secretFile }: KvmiOptions): Uint8Array | undefined {
  if (secret !== undefined && secretFile !== undefined) throw badArgument('give secret or secretFile, not both')
  if (secret !== undefined) return new TextEncoder().encode(secret)
  if (secretFile === undefined) return undefined
  try {
    return readFileSync(secretFile)
  } catch (error) {
    throw new MicrovmiError('BAD_ARGUMENT', `secretFile ${secretFile} cannot be read`, { cause: error })
  }
}

function named(vm: string): (caller: Caller) => boolean {
  return ({ hello }) => hello !== undefined && (nameOf(hello) === vm || hello.uuid === vm.toLowerCase())
}

function listing(caller: Caller, taken?: string): VmListing[] {
  const { hello, failure } = caller
  if (!hello) return []
  const hindrance = failure?.message ?? taken
  const id = idOf(hello)
  return [{ vm: id, name: nameOf(hello), id, state: 'running', ...(hindrance ? { hindrance } : {}) }]
}

/** Those that share an id (a copied VM) are opened by name. */
function unambiguous(listings: readonly VmListing[]): VmListing[] {
  const isShared = (id: string) => listings.filter((one) => one.id === id).length > 1
  return listings.map((one) => (isShared(one.id) ? { ...one, vm: one.name } : one))
}

function ambiguous(vm: string, callers: readonly Caller[]): MicrovmiError {
  const ids = callers.map(({ hello }) => hello?.uuid).join(', ')
  return new MicrovmiError('VM_AMBIGUOUS', `several VMs are called '${cut(vm)}': open one by its UUID (${ids})`)
}

function notFound(vm: string, listeners: readonly Listener[]): MicrovmiError {
  const where = listeners.map(({ name }) => name).join(', ')
  const seen = listeners.flatMap(({ callers }) => callers.map(({ hello }) => hello?.name)).join(', ')
  const failure = listeners.map(({ lastFailure }) => lastFailure).find((one) => one !== undefined)
  const why = failure ? ` The last one that failed: ${failure.message}.` : ''
  const message = `no QEMU dialled in at ${where} for a VM '${cut(vm)}'. Those that did: ${seen || 'none'}.${why}`
  return new MicrovmiError('VM_NOT_FOUND', message, { cause: failure })
}

function cut(name: string): string {
  return name.length > 64 ? `${name.slice(0, 64)}…` : name
}

function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds))
}
