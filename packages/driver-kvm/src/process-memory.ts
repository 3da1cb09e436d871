import { MicrovmiError, type ScatteredRead } from '@microvmi/core/driver'
import type { HostMemory } from './host-memory.ts'
import { allocate, discard, ERRNO, errno, MAX_PIECES, type NativeMemory, readProcess, writeProcess } from './native.ts'

/** Pieces of one call: more bring nothing. */
const PIECES = 512
/** struct iovec (bits/types/struct_iovec.h): a pointer and a size. */
const IOVEC = 16
const LIMIT = 2 ** 20
const HALF = 2 ** 32

/**
 * The memory of QEMU's process, by process_vm_readv(2) and process_vm_writev(2). All pointers that these calls get are
 * into memory of our own, which is kept as long as this object: no address of a JavaScript buffer is ever taken.
 */
export class ProcessMemory implements HostMemory {
  readonly way = 'process_vm'
  readonly #pid: number
  /** Where copies begin or end: up to 2 MiB of scattered pages, or 1 MiB at a time. */
  readonly #scratch: NativeMemory
  readonly #vectors: NativeMemory
  readonly #words: Uint32Array
  readonly #remote: number
  #pieces = 0
  #used = 0
  #hasEnded = false

  constructor(pid: number) {
    this.#pid = pid
    this.#scratch = allocate(PIECES * 4096)
    this.#vectors = allocate(2 * PIECES * IOVEC)
    this.#words = new Uint32Array(this.#vectors.bytes.buffer)
    this.#remote = this.#vectors.address + PIECES * IOVEC
    this.#checkRight()
  }

  get hasEnded(): boolean {
    return this.#hasEnded
  }

  /** Copies from an address in QEMU to `into`. */
  read(hostAddress: number, into: Uint8Array): void {
    for (let done = 0; done < into.length; done += LIMIT) {
      const length = Math.min(LIMIT, into.length - done)
      const bytes = this.piece(hostAddress + done, length)
      into.set(bytes, done)
    }
  }

  /** Up to 1 MiB from an address in QEMU, in memory of ours that the next call overwrites. */
  piece(hostAddress: number, length: number): Uint8Array {
    this.#start()
    this.#add(hostAddress, length)
    this.#transfer(readProcess)
    return this.#scratch.bytes.subarray(0, length)
  }

  /** Copies `from` to an address in QEMU. */
  write(hostAddress: number, from: Uint8Array): void {
    for (let done = 0; done < from.length; done += LIMIT) {
      const length = Math.min(LIMIT, from.length - done)
      this.#scratch.bytes.set(from.subarray(done, done + length))
      this.#start()
      this.#add(hostAddress + done, length)
      this.#transfer(writeProcess)
    }
  }

  /** Many reads in as few calls as possible. `hostAddresses[i]` is where `reads[i]` is, or 0: not to be read. */
  readMany(reads: readonly ScatteredRead[], hostAddresses: Float64Array): void {
    const { buffer } = this.#scratch.bytes
    for (let first = 0; first < reads.length; ) {
      this.#start()
      let next = first
      for (; next < reads.length && this.#pieces < PIECES; next++) {
        const length = reads[next]?.into.length ?? 0
        if (this.#used + length > this.#scratch.bytes.length) break
        const hostAddress = hostAddresses[next] ?? 0
        if (hostAddress !== 0 && length > 0) this.#add(hostAddress, length)
      }
      if (this.#pieces > 0) this.#transfer(readProcess)
      let offset = 0
      for (let index = first; index < next; index++) {
        const into = reads[index]?.into
        if (into === undefined || into.length === 0 || hostAddresses[index] === 0) continue
        // A plain view costs half of what subarray() does.
        into.set(new Uint8Array(buffer, offset, into.length))
        offset += into.length
      }
      const single = reads[next]
      if (next === first && single) {
        // One read of over 2 MiB.
        this.read(hostAddresses[next] ?? 0, single.into)
        next += 1
      }
      first = next
    }
  }

  close(): void {
    discard(this.#scratch)
    discard(this.#vectors)
  }

  /** No process has memory at its first pages (vm.mmap_min_addr): who may look is told so, who may not is refused. */
  #checkRight(): void {
    this.#start()
    this.#add(4096, 1)
    this.#putLocal()
    if (readProcess(this.#pid, this.#vectors.address, 1, this.#remote, 1) >= 0) return
    const code = errno()
    if (code === ERRNO.EFAULT) return
    this.close()
    throw failure(this.#pid, code)
  }

  #start(): void {
    this.#pieces = 0
    this.#used = 0
  }

  /** One more piece: the remote vector tells where it is, the only local one grows. */
  #add(hostAddress: number, length: number): void {
    const at = ((PIECES + this.#pieces) * IOVEC) / 4
    this.#words[at] = hostAddress % HALF
    this.#words[at + 1] = Math.floor(hostAddress / HALF)
    this.#words[at + 2] = length
    this.#words[at + 3] = 0
    this.#pieces += 1
    this.#used += length
  }

  #putLocal(): void {
    const { address } = this.#scratch
    this.#words[0] = address % HALF
    this.#words[1] = Math.floor(address / HALF)
    this.#words[2] = this.#used
    this.#words[3] = 0
  }

  #transfer(copy: typeof readProcess): void {
    this.#putLocal()
    const done = copy(this.#pid, this.#vectors.address, 1, this.#remote, this.#pieces)
    if (done === this.#used) return
    const error = failure(this.#pid, done < 0 ? errno() : ERRNO.EFAULT)
    this.#hasEnded = error.code === 'VM_GONE'
    throw error
  }
}

// A piece more than the kernel takes would be a fault of ours.
if (PIECES > MAX_PIECES) throw new RangeError('too many pieces for one call')

function failure(pid: number, code: number): MicrovmiError {
  const cause = { call: 'process_vm_readv', errno: code }
  switch (code) {
    case ERRNO.ESRCH:
      return new MicrovmiError('VM_GONE', `QEMU (process ${pid}) has ended`, { cause })
    case ERRNO.EPERM:
    case ERRNO.ENOSYS:
      return new MicrovmiError(
        'DENIED',
        `no right to the memory of process ${pid}: run as the same user with kernel.yama.ptrace_scope=0, or as root`,
        { cause },
      )
    default:
      return new MicrovmiError('VM_GONE', `QEMU (process ${pid}) has let go of the guest's memory`, { cause })
  }
}
