/**
 * The C library, through koffi: the only file of this package that crosses into native code. Constants are those of
 * x86-64 Linux; each names its header.
 */
import { createRequire } from 'node:module'
import { MicrovmiError } from '@microvmi/core/driver'

type Koffi = typeof import('koffi')
/** A handle that watches a descriptor on the event loop. */
export type Watch = ReturnType<Koffi['node']['poll']>

// sys/socket.h, bits/socket.h, bits/socket_type.h
const AF_UNIX = 1
const SOCK_STREAM = 1
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const MSG_NOSIGNAL = 0x4000
const SOL_SOCKET = 1
const SO_PEERCRED = 17
/** sys/un.h: sun_path has 108 bytes, its last is a zero. */
const UNIX_PATH_MAX = 107

// bits/poll.h
export const POLLIN = 1
export const POLLOUT = 4
export const POLLHUP = 16

// bits/mman-linux.h
const PROT_READ = 1
const PROT_WRITE = 2
const MAP_SHARED = 1
const MAP_PRIVATE = 2
const MAP_FIXED = 0x10
const MAP_ANONYMOUS = 0x20
const MAP_NORESERVE = 0x4000
/** What mmap returns when it fails: -1 as an address. */
const MAP_FAILED = 2 ** 64

// bits/unistd_ext.h (lseek)
const SEEK_DATA = 3
const SEEK_HOLE = 4

// asm-generic/errno-base.h, asm-generic/errno.h
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  ENXIO: 6,
  EAGAIN: 11,
  EACCES: 13,
  EFAULT: 14,
  ENOSYS: 38,
  ECONNREFUSED: 111,
} as const

/** uio.h: UIO_MAXIOV; more pieces than that in one call are refused. */
export const MAX_PIECES = 1024

interface Libc {
  readonly koffi: Koffi
  socket(family: number, type: number, protocol: number): number
  connect(fd: number, address: Uint8Array, length: number): number
  getsockopt(fd: number, level: number, name: number, value: Uint8Array, length: Uint32Array): number
  poll(fds: Uint8Array, count: number, timeout: number): number
  recv(fd: number, into: Uint8Array, length: number, flags: number): number
  send(fd: number, from: Uint8Array, length: number, flags: number): number
  close(fd: number): number
  lseek(fd: number, offset: number, whence: number): number
  mmap(address: number, length: number, protection: number, flags: number, fd: number, offset: number): number | bigint
  munmap(address: number, length: number): number
  process_vm_readv(pid: number, local: number, locals: number, remote: number, remotes: number, flags: number): number
  process_vm_writev(pid: number, local: number, locals: number, remote: number, remotes: number, flags: number): number
}

let loaded: Libc | undefined

/** Loads the C library on first use, so that importing the package works on every platform. */
function libc(): Libc {
  loaded ??= load()
  return loaded
}

/** Throws `DRIVER_UNAVAILABLE`, saying why, where the native calls cannot be made. */
export function checkPlatform(): void {
  libc()
}

function load(): Libc {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new MicrovmiError('DRIVER_UNAVAILABLE', `needs x86-64 Linux, this is ${process.platform} on ${process.arch}`)
  }
  try {
    const koffi = createRequire(import.meta.url)('koffi') as Koffi
    const library = koffi.load('libc.so.6')
    // Addresses and sizes are below 2^53 on x86-64 Linux: numbers carry them exactly, and cost less than bigints.
    return {
      koffi,
      socket: library.func('int socket(int domain, int type, int protocol)'),
      connect: library.func('int connect(int fd, void *address, uint32 length)'),
      getsockopt: library.func('int getsockopt(int fd, int level, int name, void *value, void *length)'),
      poll: library.func('int poll(void *fds, ulong count, int timeout)'),
      recv: library.func('long recv(int fd, void *buffer, size_t length, int flags)'),
      send: library.func('long send(int fd, void *buffer, size_t length, int flags)'),
      close: library.func('int close(int fd)'),
      lseek: library.func('int64 lseek(int fd, int64 offset, int whence)'),
      mmap: library.func('uint64 mmap(uint64 address, size_t length, int protection, int flags, int fd, int64 offset)'),
      munmap: library.func('int munmap(uint64 address, size_t length)'),
      process_vm_readv: library.func(
        'long process_vm_readv(int pid, uint64 local, ulong locals, uint64 remote, ulong remotes, ulong flags)',
      ),
      process_vm_writev: library.func(
        'long process_vm_writev(int pid, uint64 local, ulong locals, uint64 remote, ulong remotes, ulong flags)',
      ),
    }
  } catch (error) {
    throw new MicrovmiError('DRIVER_UNAVAILABLE', 'the C library could not be loaded through koffi: is it installed?', {
      cause: error,
    })
  }
}

/** errno of the call just made; it says nothing after a call that succeeded. */
export function errno(): number {
  return libc().koffi.errno()
}

/** A connected unix socket, non-blocking; or the errno of why not. */
export function connectUnix(path: string): { readonly fd: number } | { readonly errno: number } {
  const bytes = new TextEncoder().encode(path)
  if (bytes.length > UNIX_PATH_MAX) {
    throw new MicrovmiError('BAD_ARGUMENT', `a socket's path has at most ${UNIX_PATH_MAX} bytes: ${path}`)
  }
  const { socket, connect, close } = libc()
  const fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
  if (fd < 0) return { errno: errno() }
  // struct sockaddr_un (sys/un.h): the family in two bytes, then the path.
  const address = new Uint8Array(2 + UNIX_PATH_MAX + 1)
  address[0] = AF_UNIX
  address.set(bytes, 2)
  if (connect(fd, address, address.length) === 0) return { fd }
  const failure = errno()
  close(fd)
  return { errno: failure }
}

/** The process at the other end of a unix socket (struct ucred, bits/socket.h: pid first). */
export function peerPid(fd: number): number | undefined {
  const credentials = new Uint8Array(12)
  const length = Uint32Array.of(credentials.length)
  if (libc().getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length) !== 0) return undefined
  return new DataView(credentials.buffer).getInt32(0, true)
}

const pollfd = new Uint8Array(8)
const pollView = new DataView(pollfd.buffer)

/** What of `events` is there, and POLLHUP; 0 when `milliseconds` went by. */
export function waitFor(fd: number, events: number, milliseconds: number): number {
  // struct pollfd (poll.h): fd, events, revents.
  pollView.setInt32(0, fd, true)
  pollView.setInt16(4, events, true)
  pollView.setInt16(6, 0, true)
  return libc().poll(pollfd, 1, Math.max(0, Math.ceil(milliseconds))) > 0 ? pollView.getInt16(6, true) : 0
}

/** The number of bytes received, 0 at the end of the stream, -1 with errno. */
export function receive(fd: number, into: Uint8Array): number {
  return libc().recv(fd, into, into.length, 0)
}

/** The number of bytes sent, or -1 with errno; never a SIGPIPE. */
export function send(fd: number, bytes: Uint8Array): number {
  return libc().send(fd, bytes, bytes.length, MSG_NOSIGNAL)
}

export function closeDescriptor(fd: number): void {
  libc().close(fd)
}

/** Calls back on the event loop when the descriptor is readable; does not keep the process alive until `ref()`. */
export function watchReadable(fd: number, callback: () => void): Watch {
  const watch = libc().koffi.node.poll(fd, { readable: true, disconnect: true }, callback)
  watch.unref()
  return watch
}

/** The next offset at or after `offset` that holds data; the file's end where there is none. */
export function nextData(fd: number, offset: number, end: number): number {
  const found = libc().lseek(fd, offset, SEEK_DATA)
  return found < 0 ? end : Math.min(found, end)
}

/** The next offset at or after `offset` where a hole begins. */
export function nextHole(fd: number, offset: number, end: number): number {
  const found = libc().lseek(fd, offset, SEEK_HOLE)
  return found < 0 ? end : Math.min(found, end)
}

/** Memory of this process outside of JavaScript's heap. */
export interface NativeMemory {
  readonly address: number
  readonly bytes: Uint8Array
}

/** When a mapping's last view was collected, its addresses can be given back. */
const unmapWhenCollected = new FinalizationRegistry<{ address: number; length: number }>(({ address, length }) => {
  libc().munmap(address, length)
})

/** Maps `length` bytes of a file, writable where `writable`; throws the errno as `HYPERVISOR`. */
export function mapFile(fd: number, offset: number, length: number, writable: boolean): NativeMemory {
  return map(length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, offset)
}

/** Zeroed memory. */
export function allocate(length: number): NativeMemory {
  return map(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
}

function map(length: number, protection: number, flags: number, fd: number, offset: number): NativeMemory {
  const { mmap, koffi } = libc()
  const address = Number(mmap(0, length, protection, flags, fd, offset))
  if (address === MAP_FAILED) {
    throw new MicrovmiError('HYPERVISOR', `mmap of ${length} bytes failed`, { cause: { call: 'mmap', errno: errno() } })
  }
  const buffer = koffi.view(address, length)
  unmapWhenCollected.register(buffer, { address, length })
  return { address, bytes: new Uint8Array(buffer) }
}

/**
 * Lets go of what a mapping shows. Views of it may be about still, and touching unmapped memory would end the process:
 * so the addresses show zeros from now on, and are unmapped when the last view was collected.
 */
export function discard(memory: NativeMemory): void {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE
  libc().mmap(memory.address, memory.bytes.length, PROT_READ | PROT_WRITE, flags, -1, 0)
}

/**
 * Copies between this process and another. `local` and `remote` are addresses of arrays of `struct iovec` (uio.h).
 * The number of bytes copied, or -1 with errno.
 */
export function readProcess(pid: number, local: number, locals: number, remote: number, remotes: number): number {
  return libc().process_vm_readv(pid, local, locals, remote, remotes, 0)
}

/** See `readProcess`. */
export function writeProcess(pid: number, local: number, locals: number, remote: number, remotes: number): number {
  return libc().process_vm_writev(pid, local, locals, remote, remotes, 0)
}
