/**
 * The C library, through koffi: the only file of this package that crosses into native code. Constants are those of
 * x86-64 Linux; each names its header.
 */
import { createRequire } from 'node:module'
import { MicrovmiError } from '@microvmi/core/driver'

type Koffi = typeof import('koffi')

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

interface Libc {
  readonly koffi: Koffi
  mmap(address: number, length: number, protection: number, flags: number, fd: number, offset: number): number | bigint
  munmap(address: number, length: number): number
  fcntl(fd: number, command: number, lock: Uint8Array): number
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
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')
    const library = koffi.load('libc.so.6')
    // Addresses and sizes are below 2^53 on x86-64 Linux: numbers carry them exactly, and cost less than bigints.
    return {
      koffi,
      mmap: library.func('uint64 mmap(uint64 address, size_t length, int protection, int flags, int fd, int64 offset)'),
      munmap: library.func('int munmap(uint64 address, size_t length)'),
      fcntl: library.func('int fcntl(int fd, int command, void *lock)'),
    }
  } catch (error) {
    throw new MicrovmiError('DRIVER_UNAVAILABLE', 'the C library could not be loaded through koffi: is it installed?', {
      cause: error,
    })
  }
}

/** errno of the call just made; it says nothing after a call that succeeded. */
function errno(): number {
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
