/**
 * The C library, through koffi: the only file of this package that crosses into native code. Constants are those of
 * x86-64 Linux; each names its header.
 */
import { createRequire } from 'node:module'
import { MicrovmiError } from '@microvmi/core/driver'

type Koffi = typeof import('koffi')
/** A handle that watches a descriptor on the event loop. */
export type Watch = ReturnType<Koffi['node']['poll']>

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

// bits/fcntl-linux.h, and asm-generic/fcntl.h's struct flock: type and whence (16 bits each), from offset 8 start and
// length (64 bits each), and a pid that is 0 for locks of an open file description.
const F_OFD_GETLK = 36
const F_OFD_SETLK = 37
const F_WRLCK = 1
const F_UNLCK = 2
const FLOCK_LENGTH = 32

// bits/socket.h, bits/socket_type.h
const AF_INET = 2
const AF_INET6 = 10
const SOCK_STREAM = 1
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const SOL_SOCKET = 1
const SO_ERROR = 4
const MSG_NOSIGNAL = 0x4000

// bits/poll.h
export const POLLIN = 1
export const POLLOUT = 4

// asm-generic/errno-base.h, asm-generic/errno.h
export const ERRNO = {
  EINTR: 4,
  EAGAIN: 11,
  EACCES: 13,
  EINPROGRESS: 115,
  ECONNREFUSED: 111,
} as const

interface Libc {
  readonly koffi: Koffi
  mmap(address: number, length: number, protection: number, flags: number, fd: number, offset: number): number | bigint
  munmap(address: number, length: number): number
  fcntl(fd: number, command: number, lock: Uint8Array): number
  socket(family: number, type: number, protocol: number): number
  connect(fd: number, address: Uint8Array, length: number): number
  getsockopt(fd: number, level: number, name: number, value: Uint8Array, length: Uint32Array): number
  poll(fds: Uint8Array, count: number, timeout: number): number
  recv(fd: number, into: Uint8Array, length: number, flags: number): number
  send(fd: number, from: Uint8Array, length: number, flags: number): number
  close(fd: number): number
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
      mmap: library.func('uint64 mmap(uint64 address, size_t length, int protection, int flags, int fd, int64 offset)'),
      munmap: library.func('int munmap(uint64 address, size_t length)'),
      fcntl: library.func('int fcntl(int fd, int command, void *lock)'),
      socket: library.func('int socket(int domain, int type, int protocol)'),
      connect: library.func('int connect(int fd, void *address, uint32 length)'),
      getsockopt: library.func('int getsockopt(int fd, int level, int name, void *value, void *length)'),
      poll: library.func('int poll(void *fds, ulong count, int timeout)'),
      recv: library.func('long recv(int fd, void *buffer, size_t length, int flags)'),
      send: library.func('long send(int fd, void *buffer, size_t length, int flags)'),
      close: library.func('int close(int fd)'),
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

/** A file's bytes in this process's memory, shared with all who have it mapped. */
export interface SharedMapping {
  readonly bytes: Uint8Array
  /**
   * Lets go of the file. Views may be about still, and touching unmapped memory would end the process: so the
   * addresses show zeros from now on, and are unmapped when the last view was collected.
   */
  discard(): void
}

const unmapWhenCollected = new FinalizationRegistry<{ address: number; length: number }>(({ address, length }) => {
  libc().munmap(address, length)
})

/** Maps the first `length` bytes of an open file, readable and writable. Its size was checked by the caller. */
export function mapShared(fd: number, length: number): SharedMapping {
  const { mmap, koffi } = libc()
  const address = Number(mmap(0, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0))
  if (address === MAP_FAILED) {
    throw new MicrovmiError('HYPERVISOR', `mmap of ${length} bytes failed`, { cause: { call: 'mmap', errno: errno() } })
  }
  const buffer = koffi.view(address, length)
  unmapWhenCollected.register(buffer, { address, length })
  const discard = (): void => {
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE
    mmap(address, length, PROT_READ | PROT_WRITE, flags, -1, 0)
  }
  return { bytes: new Uint8Array(buffer), discard }
}

const lockBytes = new Uint8Array(FLOCK_LENGTH)
const lockView = new DataView(lockBytes.buffer)

function lockOfByte(type: number, offset: number): Uint8Array {
  lockBytes.fill(0)
  lockView.setInt16(0, type, true)
  lockView.setBigInt64(8, BigInt(offset), true)
  lockView.setBigInt64(16, 1n, true)
  return lockBytes
}

/** Locks one byte of an open file, if nobody else has; the kernel lets go when the descriptor's last holder ends. */
export function tryLockByte(fd: number, offset: number): boolean {
  return libc().fcntl(fd, F_OFD_SETLK, lockOfByte(F_WRLCK, offset)) === 0
}

/** Whether somebody else, who lives, has locked that byte. */
export function isByteLocked(fd: number, offset: number): boolean {
  if (libc().fcntl(fd, F_OFD_GETLK, lockOfByte(F_WRLCK, offset)) !== 0) {
    throw new MicrovmiError('HYPERVISOR', 'fcntl(F_OFD_GETLK) failed', { cause: { call: 'fcntl', errno: errno() } })
  }
  return lockView.getInt16(0, true) !== F_UNLCK
}

/** An IP address in the bytes of its family: 4 or 16. */
export type AddressBytes = Uint8Array

/** A non-blocking TCP socket whose connecting has begun; or the errno of why not. */
export function connectTcp(host: AddressBytes, port: number): { readonly fd: number } | { readonly errno: number } {
  const { socket, connect, close } = libc()
  const isV4 = host.length === 4
  const fd = socket(isV4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
  if (fd < 0) return { errno: errno() }
  // struct sockaddr_in (netinet/in.h): family, port, address, 8 bytes of padding; sockaddr_in6: family, port, flow
  // information, address, scope. The family in the machine's order, the port in the network's.
  const address = new Uint8Array(isV4 ? 16 : 28)
  const view = new DataView(address.buffer)
  view.setUint16(0, isV4 ? AF_INET : AF_INET6, true)
  view.setUint16(2, port, false)
  address.set(host, isV4 ? 4 : 8)
  if (connect(fd, address, address.length) === 0) return { fd }
  const failure = errno()
  if (failure === ERRNO.EINPROGRESS) return { fd }
  close(fd)
  return { errno: failure }
}

/** Why connecting failed, once the socket is writable: 0 when it did not. */
export function connectError(fd: number): number {
  const value = new Uint8Array(4)
  const length = Uint32Array.of(value.length)
  if (libc().getsockopt(fd, SOL_SOCKET, SO_ERROR, value, length) !== 0) return errno()
  return new DataView(value.buffer).getInt32(0, true)
}

const pollfd = new Uint8Array(8)
const pollView = new DataView(pollfd.buffer)

/** What of `events` is there; 0 when `milliseconds` went by. */
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
