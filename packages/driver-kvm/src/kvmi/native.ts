/**
 * Sockets that listen, through koffi: what `../native.ts` has no need of. Constants are those of x86-64 Linux; each
 * names its header.
 */
import { createRequire } from 'node:module'
import { MicrovmiError } from '@microvmi/core/driver'
import { checkPlatform, closeDescriptor, errno } from '../native.ts'

// sys/socket.h, bits/socket.h, bits/socket_type.h
const AF_UNIX = 1
const AF_VSOCK = 40
const SOCK_STREAM = 1
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
/** sys/un.h: sun_path has 108 bytes, its last is a zero. */
const UNIX_PATH_MAX = 107
/** linux/vm_sockets.h: VMADDR_CID_ANY. */
const ANY_CID = 0xffff_ffff
/** How many QEMUs may wait to be accepted. */
const BACKLOG = 128

interface Sockets {
  socket(family: number, type: number, protocol: number): number
  bind(fd: number, address: Uint8Array, length: number): number
  listen(fd: number, backlog: number): number
  accept4(fd: number, address: null, length: null, flags: number): number
}

let loaded: Sockets | undefined

function sockets(): Sockets {
  loaded ??= load()
  return loaded
}

function load(): Sockets {
  checkPlatform()
  const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')
  const library = koffi.load('libc.so.6')
  return {
    socket: library.func('int socket(int domain, int type, int protocol)'),
    bind: library.func('int bind(int fd, void *address, uint32 length)'),
    listen: library.func('int listen(int fd, int backlog)'),
    accept4: library.func('int accept4(int fd, void *address, void *length, int flags)'),
  }
}

/** What a call gave, or the errno of why not. */
export type Result = { readonly fd: number } | { readonly errno: number }

/** A unix socket that is bound but does not listen yet. `prepare` is called before it has a name. */
export function bindUnix(path: string, prepare: (fd: number) => void): Result {
  const bytes = new TextEncoder().encode(path)
  if (bytes.length > UNIX_PATH_MAX) {
    throw new MicrovmiError('BAD_ARGUMENT', `a socket's path has at most ${UNIX_PATH_MAX} bytes: ${path}`)
  }
  // struct sockaddr_un (sys/un.h): the family in two bytes, then the path.
  const address = new Uint8Array(2 + UNIX_PATH_MAX + 1)
  address[0] = AF_UNIX
  address.set(bytes, 2)
  return bound(AF_UNIX, address, prepare)
}

/** A vsock socket that is bound to a port of every context id. */
export function bindVsock(port: number): Result {
  // struct sockaddr_vm (linux/vm_sockets.h): u16 family, u16 reserved, u32 port, u32 cid, padding.
  const address = new Uint8Array(16)
  const view = new DataView(address.buffer)
  view.setUint16(0, AF_VSOCK, true)
  view.setUint32(4, port, true)
  view.setUint32(8, ANY_CID, true)
  return bound(AF_VSOCK, address, () => {})
}

function bound(family: number, address: Uint8Array, prepare: (fd: number) => void): Result {
  const fd = sockets().socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
  if (fd < 0) return { errno: errno() }
  try {
    prepare(fd)
    if (sockets().bind(fd, address, address.length) === 0) return { fd }
  } catch (error) {
    closeDescriptor(fd)
    throw error
  }
  const failure = errno()
  closeDescriptor(fd)
  return { errno: failure }
}

/** Lets others connect. 0, or the errno of why not. */
export function startListening(fd: number): number {
  return sockets().listen(fd, BACKLOG) === 0 ? 0 : errno()
}

/** The next connection, non-blocking; or the errno of why there is none. */
export function accept(fd: number): Result {
  const connection = sockets().accept4(fd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC)
  return connection < 0 ? { errno: errno() } : { fd: connection }
}
