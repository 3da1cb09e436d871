import { MicrovmiError } from '@microvmi/core'
import type { MemoryBackend, MemoryPiece } from '@microvmi/core/driver'
import { backends, changed, type Mutation, part } from './break-driver.testing.ts'

const PAGE = 4096

/** A driver that reads otherwise. */
function reading(change: (memory: MemoryBackend) => MemoryBackend['read']): Mutation['breaks'] {
  return part('memory', (memory) => ({ read: change(memory) }))
}

/** A driver that writes otherwise. */
function writing(
  change: (write: NonNullable<MemoryBackend['write']>, memory: MemoryBackend) => NonNullable<MemoryBackend['write']>,
): Mutation['breaks'] {
  return part('memory', (memory) => ({ write: change((address, from) => memory.write?.(address, from) ?? 0, memory) }))
}

/** For each case about memory, a driver that it catches. */
export const brokenMemory: Readonly<Record<string, Mutation>> = {
  'memory: reads: known memory reads as it is': {
    how: 'every read is of zeros',
    breaks: reading(() => (_, into) => into.fill(0).length),
    says: /^read\(\): the byte at 0x10064 is 0x0, not/,
  },
  'memory: reads: any alignment and length': {
    how: 'reads begin at a multiple of 8',
    breaks: reading((memory) => (address, into) => memory.read(address - (address % 8), into)),
    says: /a read of \d+ bytes: the byte/,
  },
  "memory: reads: fills the caller's bytes and no others": {
    how: 'a read goes to the end of the underlying buffer',
    breaks: reading((memory) => (address, into) => {
      memory.read(address, new Uint8Array(into.buffer, into.byteOffset))
      return into.length
    }),
    says: /what lies behind the caller's bytes/,
  },
  "memory: reads: across a page's edge": {
    how: 'a read that leaves its page begins it again',
    breaks: reading((memory) => (address, into) => {
      const rest = PAGE - (address % PAGE)
      memory.read(address, into.subarray(0, rest))
      if (rest < into.length) memory.read(address - (address % PAGE), into.subarray(rest))
      return into.length
    }),
    says: /bytes across the edge at 0x11000/,
  },
  'memory: reads: whole numbers, little endian': {
    how: 'whole numbers are big endian',
    breaks: reading((memory) => (address, into) => {
      const done = memory.read(address, into)
      if ([2, 4, 8].includes(into.length)) into.reverse()
      return done
    }),
    says: /readUint16\(0x10064\) is/,
  },
  'memory: reads: a long read equals its parts': {
    how: 'what goes beyond 1 MiB is not filled',
    breaks: reading((memory) => (address, into) => {
      const done = memory.read(address, into)
      into.subarray(2 ** 20).fill(0xee)
      return done
    }),
    says: /a read of \d+ bytes: the byte at 0x\w+ is 0xee, not/,
  },
  'memory: holes: the end of RAM': {
    how: 'what is behind the end of RAM reads as zero',
    breaks: reading((memory) => (address, into) => {
      memory.read(address, into)
      return into.length
    }),
    says: /behind it does not throw BAD_ADDRESS/,
  },
  'memory: holes: a hole': {
    how: 'the first address that is not memory is told by pages',
    breaks: reading((memory) => (address, into) => {
      const done = memory.read(address, into)
      return done === into.length ? done : Math.max(0, address + done - ((address + done) % PAGE)) - address
    }),
    says: /fails with 0xa0000 as the first that is not memory, not 0xa0001/,
  },
  'memory: holes: addresses with high bits set': {
    how: 'addresses have 40 bits',
    breaks: reading((memory) => (address, into) => memory.read(address % 2 ** 40, into)),
    says: /which is nowhere does not throw BAD_ADDRESS/,
  },
  'memory: scattered reads: all known memory in one go': {
    how: 'readMany does nothing',
    breaks: part('memory', () => ({ readMany() {} })),
    says: /^read 0 of readMany/,
  },
  'memory: scattered reads: failed ones among good ones': {
    how: 'the indexes of failed reads are counted from 1',
    breaks: part('memory', (memory) => ({
      readMany(reads, failed) {
        for (const [index, { address, into }] of reads.entries()) {
          const done = memory.read(address, into)
          if (done !== into.length) failed(index + 1, address + done)
        }
      },
    })),
    says: /the list of failed reads .* is '2 0x/,
  },
  'memory: scattered reads: none, and empty ones': {
    how: 'an empty read fails',
    breaks: part('memory', (memory) => ({
      readMany(reads, failed) {
        for (const [index, { address, into }] of reads.entries()) {
          if (into.length === 0 || memory.read(address, into) !== into.length) failed(index, address)
        }
      },
    })),
    says: /failures of readMany\(\) with empty reads is 2, not 0/,
  },
  'memory: scattered reads: more reads than a system takes at once': {
    how: 'only the first 1,024 reads are done',
    breaks: part('memory', (memory) => ({
      readMany(reads) {
        for (const { address, into } of reads.slice(0, 1024)) memory.read(address, into)
      },
    })),
    says: /^read 1024 of 1500/,
  },
  'memory: writes: what is written reads back, at any alignment and length': {
    how: 'the last byte of a write is lost',
    breaks: writing((write) => (address, from) => {
      if (from.length > 1) write(address, from.subarray(0, -1))
      return from.length
    }),
    says: /what was written: the byte/,
  },
  'memory: writes: a write changes its bytes and no others': {
    how: 'short writes are of 8 bytes',
    breaks: writing((write) => (address, from) => {
      const padded = new Uint8Array(Math.max(8, from.length))
      padded.set(from)
      return Math.min(write(address, padded), from.length)
    }),
    says: /memory around a write of 1 bytes/,
  },
  "memory: writes: across a page's edge": {
    how: "a write stops at its page's end",
    breaks: writing((write) => (address, from) => {
      write(address, from.subarray(0, PAGE - (address % PAGE)))
      return from.length
    }),
    says: /before a page's edge: the byte at 0x41000/,
  },
  'memory: writes: whole numbers, little endian': {
    how: 'words of 2 bytes are written big endian',
    breaks: writing((write) => (address, from) => write(address, from.length === 2 ? from.slice().reverse() : from)),
    says: /whole numbers that were written: the byte at 0x40003/,
  },
  'memory: writes: a write that touches what is not memory writes nothing': {
    how: 'what fits of a write is written',
    breaks: writing((write, memory) => (address, from) => {
      const there = memory.read(address, new Uint8Array(from.length))
      if (there > 0) write(address, from.subarray(0, there))
      return there
    }),
    says: /the end of RAM after a write that failed/,
  },
  'memory: writes: what was written is still there for the next session': {
    how: 'writes are kept by the session',
    breaks: part('memory', (memory) => {
      const written = new Map<number, number>()
      return {
        write(address, from) {
          for (const [index, byte] of from.entries()) written.set(address + index, byte)
          return from.length
        },
        read(address, into) {
          const done = memory.read(address, into)
          for (const index of into.keys()) into[index] = written.get(address + index) ?? into[index] ?? 0
          return done
        },
      }
    }),
    says: /what the session before has written/,
  },
  'memory: regions: ascending, disjoint, not empty': {
    how: 'the ranges come in any order',
    breaks: part('memory', (memory) => ({
      layout: () => {
        const { generation, ranges } = memory.layout?.() ?? { generation: 0, ranges: [] }
        return { generation, ranges: [...ranges].reverse() }
      },
    })),
    says: /begins before the end of the one before it/,
  },
  'memory: regions: the same while nothing changes': {
    how: 'the generation counts the calls',
    breaks: part('memory', (memory) => {
      let generation = 0
      return { layout: () => ({ ranges: memory.layout?.().ranges ?? [], generation: generation++ }) }
    }),
    says: /the generation of the second regions\(\) is 1, not 0/,
  },
  'memory: regions: what is known to be memory is in them, what is known not to be is not': {
    how: 'the first range is left out',
    breaks: part('memory', (memory) => ({
      layout: () => ({ generation: 1, ranges: memory.layout?.().ranges.slice(1) ?? [] }),
    })),
    says: /known memory at 0x10064 is in no range/,
  },
  'memory: regions: their edges are those of what can be read': {
    how: 'ranges are a page too long',
    breaks: part('memory', (memory) => ({
      layout: () => ({
        generation: 1,
        ranges: (memory.layout?.().ranges ?? []).map((range) => ({ ...range, length: range.length + PAGE })),
      }),
    })),
    says: /the last byte of the range from 0x0 cannot be read/,
  },
  'memory: pieces: cover the regions, ascending, without gap': {
    how: 'the last piece is left out',
    breaks: taking(async function* (pieces) {
      let last: MemoryPiece | undefined
      for await (const piece of pieces) {
        if (last) yield last
        last = { ...piece, bytes: piece.bytes?.slice() }
      }
    }),
    says: /the end of the pieces of 0x0 is/,
  },
  'memory: pieces: equal what is read': {
    how: 'every piece is said to be zero',
    breaks: taking(async function* (pieces) {
      for await (const piece of pieces) yield { ...piece, bytes: undefined }
    }),
    says: /what the pieces of known memory hold/,
  },
  'memory: pieces: only what was asked for': {
    how: 'pieces are made of whole pages',
    breaks: part('memory', (memory) => ({
      pieces: (options) => {
        const { within } = options
        if (!within) return memory.pieces?.(options) ?? none()
        const start = within.start - (within.start % PAGE)
        const length = Math.ceil((within.start + within.length - start) / PAGE) * PAGE
        return memory.pieces?.({ ...options, within: { start, length } }) ?? none()
      },
    })),
    says: /the first address of the pieces of a part/,
  },
  'memory: pieces: a loop that is left early': {
    how: 'a loop that is left keeps the memory busy',
    breaks: part('memory', (memory) => {
      let busy = false
      return {
        read(address, into) {
          if (busy) throw new MicrovmiError('BUSY', 'the pieces are being read')
          return memory.read(address, into)
        },
        async *pieces(options) {
          busy = true
          yield* memory.pieces?.(options) ?? none()
          busy = false
        },
      }
    }),
    says: /the pieces are being read/,
  },
  'memory: windows: a window shows what is read': {
    how: 'windows begin at the page',
    breaks: mapping((map) => (address, length) => map(address - (address % PAGE), length)),
    says: /a window of \d+ bytes: the byte/,
  },
  'memory: windows: a write to a window changes the guest': {
    how: 'a window is a copy',
    breaks: mapping((map) => (address, length) => {
      const window = map(address, length)
      return typeof window === 'number' ? window : window.slice()
    }),
    says: /what was written to a window/,
  },
  'memory: windows: none onto what is not memory': {
    how: 'there are windows onto anything',
    breaks: mapping((map) => (address, length) => {
      const window = map(address, length)
      return typeof window === 'number' ? new Uint8Array(length) : window
    }),
    says: /the function of a map\(\) that must fail is called/,
  },
  'memory: windows: windows are let go of, also when their function throws': {
    how: 'a window is never let go of, and 256 are too many',
    breaks: mapping((map) => {
      let count = 0
      return (address, length) => {
        count += 1
        if (count > 256) throw new MicrovmiError('BUSY', 'there are too many windows')
        return map(address, length)
      }
    }),
    says: /there are too many windows/,
  },
  'memory: page access: rights that were set are there, on their page alone': {
    how: 'rights are set for the next page, too',
    breaks: part('memory', (memory) => ({
      setAccess: (address, length, access, view) => memory.setAccess?.(address, length + PAGE, access, view),
    })),
    says: /the access of the next page is 'r'/,
  },
  'memory: page access: every page of a range': {
    how: 'only the first page of a range is set',
    breaks: part('memory', (memory) => ({
      setAccess: (address, _, access, view) => memory.setAccess?.(address, 1, access, view),
    })),
    says: /the access of the second of two pages/,
  },
  'memory: page access: none for what is not memory': {
    how: 'what is not memory has all rights',
    breaks: part('memory', () => ({ setAccess() {}, getAccess: () => 'rwx' })),
    says: /setAccess\(\) behind the end of RAM does not throw/,
  },
  'memory: page access: close gives all rights back': {
    how: 'rights stay as they are at close',
    breaks: backends((backend) => {
      const { memory } = backend
      let last: (() => void) | undefined
      if (!memory) throw new Error('the backend has no memory')
      return changed(backend, {
        memory: changed(memory, {
          setAccess(...rights) {
            last = () => memory.setAccess?.(...rights)
            last()
          },
        }),
        release() {
          backend.release()
          last?.()
        },
      })
    }),
    says: /the access that the session before had changed is 'r'/,
  },
  'memory: pages of ours: a page is new, zeroed and can be used': {
    how: 'a new page holds what was there before',
    breaks: part('memory', (memory) => ({
      allocate: () => {
        const page = memory.allocate?.() ?? 0
        memory.write?.(page, Uint8Array.of(1))
        return page
      },
    })),
    says: /a new page: the byte/,
  },
  'memory: pages of ours: a page that was freed is gone': {
    how: 'freeing does nothing',
    breaks: part('memory', () => ({ free() {} })),
    says: /read\(\) of a page that was freed does not throw/,
  },
  'memory: pages of ours: close takes away what is left': {
    how: 'close leaves the pages that were allocated',
    breaks: backends((backend) =>
      changed(backend, {
        release() {
          backend.release()
          backend.memory?.allocate?.()
        },
      }),
    ),
    says: /tryRead\(\) of a page of the session before is true/,
  },
}

function mapping(
  change: (map: NonNullable<MemoryBackend['map']>) => NonNullable<MemoryBackend['map']>,
): Mutation['breaks'] {
  return part('memory', (memory) => ({ map: change((address, length) => memory.map?.(address, length) ?? 0) }))
}

function taking(change: (pieces: AsyncIterable<MemoryPiece>) => AsyncIterable<MemoryPiece>): Mutation['breaks'] {
  return part('memory', (memory) => ({ pieces: (options) => change(memory.pieces?.(options) ?? none()) }))
}

async function* none(): AsyncGenerator<MemoryPiece> {}
